// Package batch is the job runner: it pushes the records of an input through a
// job at the server's full throughput, asks each distinct question once, and
// ends every record as one output row or one line of quarantine.
package batch
