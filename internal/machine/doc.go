// Package machine reads this host: what it is (processor, memory, power,
// graphics processors) and how it behaves while something runs on it.
//
// Every reading is optional and has its own time limit. What came of it is
// kept beside the facts (ok, no data, failed and why, timed out), and a fact
// that nobody told us is nil: never zero, never a guess.
//
// Parsers are functions of bytes, one file for each vendor or source, so that
// a capture from any machine can be read on any other. Only the collectors
// touch the host; they change nothing and need no special rights.
package machine
