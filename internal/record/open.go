package record

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// ReadOptions say how an input is to be read; the zero value is right for most.
type ReadOptions struct {
	// Format overrides the ending of the name in Open.
	Format Format
	// Encoding is the character set of CSV, TSV and JSONL: any name of the WHATWG
	// list, such as windows-1252 or shift_jis. Empty means UTF-8. A byte order
	// mark in the input overrides it.
	Encoding string
	// Delimiter parts the cells of a CSV or TSV; 0 means a tab for TSV and for CSV
	// a comma, or else what the header line shows: a semicolon or a tab where it
	// holds no comma.
	Delimiter byte
	// LazyQuotes takes a quote in the wrong place of a CSV or TSV for text instead
	// of refusing the record.
	LazyQuotes bool
	// MaxRecord is the most bytes a record of CSV, TSV or JSONL may have; longer
	// ones are BadRecords. 0 means DefaultMaxRecord.
	MaxRecord int
}

// ErrEmpty marks the error for an input without a header or a record.
var ErrEmpty = errors.New("the input is empty")

// Open reads the named file. Its format is the one of the options or else the
// one of its ending; gzip and zstd are recognised by content, whatever the
// ending. A file with nothing in it is an error that matches ErrEmpty.
func Open(name string, opts ReadOptions) (Reader, error) {
	format := opts.Format
	if format == "" {
		var err error
		if format, _, err = FormatOf(name); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s is a directory: name a file with records", name)
	}
	s := newSource(f, name)
	s.closers = append(s.closers, f.Close)
	return s.open(format, opts)
}

// NewReader reads records from r, which stays the caller's to close. An empty
// format means JSONL. Parquet needs random access: unless r offers it (a file, a
// bytes.Reader) its bytes are kept in a temporary file until Close.
func NewReader(r io.Reader, format Format, opts ReadOptions) (Reader, error) {
	return newSource(r, "").open(cmp.Or(format, opts.Format, JSONL), opts)
}

// source is the bytes below a Reader and what is needed to report on them.
type source struct {
	r       io.Reader
	name    string // of the file; empty when the caller brought the bytes
	read    atomic.Int64
	size    int64 // -1 when unknown
	closers []func() error
}

func newSource(r io.Reader, name string) *source {
	s := &source{r: r, name: name, size: -1}
	switch r := r.(type) {
	case interface{ Stat() (fs.FileInfo, error) }:
		if info, err := r.Stat(); err == nil && info.Mode().IsRegular() {
			s.size = info.Size()
		}
	case interface{ Size() int64 }:
		s.size = r.Size()
	}
	return s
}

// Read counts what is read below compression, for progress.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.read.Add(int64(n))
	return n, err
}

// Progress may be called while another goroutine reads.
func (s *source) Progress() float64 {
	if s.size <= 0 {
		return -1
	}
	return min(1, float64(s.read.Load())/float64(s.size))
}

// Close closes what Open or NewReader opened, last first.
func (s *source) Close() error {
	var errs []error
	for _, closer := range slices.Backward(s.closers) {
		errs = append(errs, closer())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// errorf makes an error about the input as a whole, with its name in front.
func (s *source) errorf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if s.name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

// broken is the error for a stream that stops in the middle.
func (s *source) broken(err error, pos int64) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return s.errorf("the input breaks off after record %d: %w: is the file complete?", pos, err)
	}
	return s.errorf("the input cannot be read on after record %d: %w", pos, err)
}

func (s *source) open(format Format, opts ReadOptions) (reader Reader, err error) {
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	r, packed, err := s.unpack()
	if err != nil {
		return nil, err
	}
	// What comes out of a decompressor can be peeked at only through a buffer.
	text := bufio.NewReaderSize(r, 64<<10)
	head, err := text.Peek(16)
	if len(head) == 0 && !errors.Is(err, io.EOF) {
		return nil, s.broken(err, 0)
	}
	if len(head) == 0 {
		return nil, s.errorf("%w: it holds no bytes", ErrEmpty)
	}
	if err := foreign(head, format); err != nil {
		return nil, s.errorf("%w", err)
	}
	switch format {
	case CSV, TSV, JSONL:
	case Parquet:
		return s.openParquet(text, packed)
	default:
		return nil, s.errorf("%q is no format of records: choose csv, tsv, jsonl or parquet", format)
	}
	decoded, charset, err := decode(text, opts.Encoding)
	if err != nil {
		return nil, s.errorf("%w", err)
	}
	buf := newBuffer(decoded, opts.MaxRecord)
	if format == JSONL {
		return newJSONLReader(s, buf, charset), nil
	}
	return newCSVReader(s, buf, format, charset, opts)
}

// unpack sees through compression and says whether there was any.
func (s *source) unpack() (r io.Reader, packed bool, err error) {
	raw := bufio.NewReaderSize(s, 64<<10)
	head, err := raw.Peek(4)
	if len(head) == 0 && !errors.Is(err, io.EOF) {
		return nil, false, s.broken(err, 0)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(raw)
		if err != nil {
			return nil, false, s.errorf("the input begins like gzip but is damaged: %w", err)
		}
		return z, true, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// One goroutine and windows up to what `zstd --long` makes: memory stays small.
		z, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, false, s.errorf("the input begins like zstd but is damaged: %w", err)
		}
		s.closers = append(s.closers, func() error { z.Close(); return nil })
		return z, true, nil
	}
	return raw, false, nil
}

// foreign recognises files that are something else than they were taken for.
func foreign(head []byte, format Format) error {
	const saveAs = "save it as CSV first"
	for _, f := range []struct{ magic, what, do string }{
		{"PAR1", "a Parquet file", "name it .parquet or say --format parquet"},
		{"PK\x03\x04", "an Excel workbook or another ZIP file", saveAs},
		{"\xd0\xcf\x11\xe0", "an old Excel workbook", saveAs},
		{"SQLite format 3\x00", "an SQLite database", "export the table as CSV first"},
		{"%PDF-1.", "a PDF", "extract its table as CSV first"},
		{"BZh91AY", "packed with bzip2", "unpack it first, or use gzip or zstd"},
		{"\xfd7zXZ\x00", "packed with xz", "unpack it first, or use gzip or zstd"},
	} {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			if f.magic == "PAR1" {
				if format == Parquet {
					return nil
				}
				if len(head) > 4 && head[4] >= ' ' { // a CSV may have a column of that name
					continue
				}
			}
			return fmt.Errorf("the input is %s: %s", f.what, f.do)
		}
	}
	if format == Parquet {
		return errors.New("the input is not a Parquet file, which begins with PAR1: say --format csv, tsv or jsonl if it is one of these")
	}
	return nil
}

// decode turns the input into UTF-8 without a byte order mark. charset is the
// name of the encoding it was in, empty for UTF-8.
func decode(r *bufio.Reader, name string) (text io.Reader, charset string, err error) {
	var enc encoding.Encoding
	if name != "" {
		if enc, err = htmlindex.Get(name); err != nil || enc == encoding.Replacement {
			return nil, "", fmt.Errorf("unknown encoding %q: use one such as utf-8, windows-1252, utf-16le or shift_jis", name)
		}
		charset, _ = htmlindex.Name(enc)
	}
	utf16 := func(e unicode.Endianness, name string) {
		enc, charset = unicode.UTF16(e, unicode.IgnoreBOM), name
	}
	head, _ := r.Peek(4)
	drop := 0
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		enc, charset, drop = nil, "", 3
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		utf16(unicode.LittleEndian, "utf-16le")
		drop = 2
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		utf16(unicode.BigEndian, "utf-16be")
		drop = 2
	case name == "" && len(head) == 4 && head[0] != 0 && head[1] == 0 && head[2] != 0 && head[3] == 0:
		utf16(unicode.LittleEndian, "utf-16le") // no text has such zeros
	case name == "" && len(head) == 4 && head[0] == 0 && head[1] != 0 && head[2] == 0 && head[3] != 0:
		utf16(unicode.BigEndian, "utf-16be")
	}
	if _, err := r.Discard(drop); err != nil {
		return nil, "", err
	}
	if enc == nil || charset == "utf-8" {
		return r, "", nil
	}
	return transform.NewReader(r, enc.NewDecoder()), charset, nil
}

// replaces reports whether a decoder marks bytes it cannot read with U+FFFD in
// texts that could not hold that character themselves.
func replaces(charset string) bool {
	switch charset {
	case "", "utf-16le", "utf-16be", "gb18030":
		return false
	}
	return true
}
