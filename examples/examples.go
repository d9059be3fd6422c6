// Package examples holds two example jobs with sample records, and hands them
// to the demo.
package examples

import "embed"

// Files are the job files and their records.
//
//go:embed *.yaml *.csv *.jsonl
var Files embed.FS
