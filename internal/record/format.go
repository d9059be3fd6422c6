package record

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Format is how records are written in a stream of bytes. The zero Format
// stands for "not said".
type Format string

// The formats that can be read and written.
const (
	CSV     Format = "csv"
	TSV     Format = "tsv"
	JSONL   Format = "jsonl"
	Parquet Format = "parquet"
)

// Compression is how a stream of bytes is packed; the zero Compression is none.
type Compression string

// The compressions that can be read and written.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// ParseFormat turns a name such as a user gives it ("csv", "ndjson") into a
// Format.
func ParseFormat(name string) (Format, error) {
	switch strings.ToLower(name) {
	case "csv":
		return CSV, nil
	case "tsv", "tab":
		return TSV, nil
	case "jsonl", "ndjson":
		return JSONL, nil
	case "parquet":
		return Parquet, nil
	}
	return "", fmt.Errorf("%q is no format of records: choose csv, tsv, jsonl or parquet", name)
}

// FormatOf tells the format and the compression of a file by the ending of its
// name: .csv, .tsv, .tab, .jsonl, .ndjson or .parquet, each alone or followed
// by .gz or .zst. The case of letters does not matter. On an unknown format
// the compression is still good.
func FormatOf(path string) (Format, Compression, error) {
	name := strings.ToLower(filepath.Base(path))
	name, compression := cutCompression(name)
	ending := strings.TrimPrefix(filepath.Ext(name), ".")
	format, err := ParseFormat(ending)
	if err != nil || name == "."+ending {
		return "", compression, fmt.Errorf("%s: its ending does not tell the format of its records: "+
			"use .csv, .tsv, .jsonl or .parquet (.gz or .zst may follow), or say it with --format", path)
	}
	return format, compression, nil
}

func cutCompression(name string) (string, Compression) {
	if base, ok := strings.CutSuffix(name, ".gz"); ok {
		return base, Gzip
	}
	if base, ok := strings.CutSuffix(name, ".zst"); ok {
		return base, Zstd
	}
	return name, ""
}
