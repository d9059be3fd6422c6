//go:build race

package sqlite

// checks is how many random histories the model test tries: the race detector
// makes this SQLite about twenty times slower.
const checks = "15"
