//go:build !race

package sqlite

const checks = "100"
