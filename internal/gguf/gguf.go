// Package gguf reads the header of a GGUF model file: its metadata and what
// tensors it holds, which gives layers, heads and bytes per weight. It never
// reads the weights themselves.
//
// The format is llama.cpp's (ggml/include/gguf.h): magic, version, counts,
// metadata, tensor infos, padding, tensor data; all little-endian here.
package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strings"
)

// Limits on what a header may ask for. A real header is below 20 MB, nearly
// all of it vocabulary; the limits only keep a hostile or broken file from
// taking memory that its own size does not justify.
const (
	maxHeader = 128 << 20 // bytes up to the tensor data
	maxDims   = 4         // GGML_MAX_DIMS
	// defaultAlignment is the alignment of tensor data unless the metadata has
	// general.alignment (GGUF_DEFAULT_ALIGNMENT).
	defaultAlignment = 32
)

// ErrFormat is in the chain of every error about the bytes themselves, as
// against one from reading them.
var ErrFormat = errors.New("not a GGUF file that can be read")

// File is the header of a model file.
type File struct {
	Version uint32
	// Meta is the metadata by key. A value has the Go type of its GGUF type:
	// uint8 to int64, float32, float64, bool, string, or a slice of one of them.
	Meta    map[string]any
	Tensors []Tensor // in the order of the file
	// DataOffset is where the tensor data begins, in bytes from the start.
	DataOffset int64
	// Missing is how many bytes of tensor data the file ought to hold and does
	// not: above zero for a download that was cut short. Tensors of an unknown
	// type are counted only up to their start.
	Missing int64
}

// Tensor is one tensor's place and shape.
type Tensor struct {
	Name   string
	Dims   []int64 // innermost (contiguous) dimension first, as in the file
	Type   Type
	Offset int64 // bytes from File.DataOffset
}

// Elements is the number of values, the product of the dimensions.
func (t Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Dims {
		n *= d
	}
	return n
}

// Bytes is the size of the tensor's data; false when its type is not known.
func (t Tensor) Bytes() (int64, bool) {
	b, ok := blocks[t.Type]
	if !ok {
		return 0, false
	}
	return t.Elements() / b.values * b.bytes, true
}

// Read reads the header of a model file of the given size in bytes.
func Read(r io.ReaderAt, size int64) (*File, error) {
	d := &decoder{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 64<<10), left: min(size, maxHeader)}
	start := d.left
	f := &File{Meta: map[string]any{}}
	f.header(d)
	if d.err != nil {
		return nil, fmt.Errorf("at byte %d: %w", start-d.left, d.err)
	}

	align := int64(defaultAlignment)
	if v, ok := f.Uint("general.alignment"); ok {
		if v == 0 || v > 1<<20 || bits.OnesCount64(v) != 1 {
			return nil, fmt.Errorf("%w: general.alignment is %d, not a power of two", ErrFormat, v)
		}
		align = int64(v)
	}
	used := start - d.left
	f.DataOffset = (used + align - 1) / align * align
	end := int64(0)
	for _, t := range f.Tensors {
		if t.Offset%align != 0 {
			return nil, fmt.Errorf("%w: tensor %q is not aligned to %d bytes", ErrFormat, t.Name, align)
		}
		n, _ := t.Bytes()
		if t.Offset > math.MaxInt64-f.DataOffset-n {
			return nil, fmt.Errorf("%w: tensor %q ends beyond any file", ErrFormat, t.Name)
		}
		end = max(end, t.Offset+n)
	}
	if len(f.Tensors) > 0 {
		f.Missing = max(0, f.DataOffset+end-size)
	}
	return f, nil
}

func (f *File) header(d *decoder) {
	if magic := d.bytes(4); string(magic) != "GGUF" {
		d.fail("it does not begin with GGUF")
		return
	}
	f.Version = d.uint32()
	switch {
	case d.err != nil:
		return
	case f.Version == 2 || f.Version == 3:
	case f.Version == 1:
		d.fail("version 1 is no longer in use; convert the model again with a current llama.cpp")
	case bits.ReverseBytes32(f.Version) <= 3:
		d.fail("it is in big-endian order, for another kind of machine")
	default:
		d.fail("version %d is newer than what is known here (2 and 3)", f.Version)
	}
	// The smallest tensor info is 24 bytes, the smallest metadata entry 13.
	tensors, entries := d.count(24), d.count(13)
	for range entries {
		key := d.string()
		v := d.value(valueType(d.uint32()), false)
		if d.err != nil {
			if key != "" && len(key) < 200 {
				d.err = fmt.Errorf("metadata %q: %w", key, d.err)
			}
			return
		}
		if _, twice := f.Meta[key]; twice {
			d.fail("metadata %q is there twice", key)
			return
		}
		f.Meta[key] = v
	}
	for range tensors {
		t := d.tensor()
		if d.err != nil {
			return
		}
		f.Tensors = append(f.Tensors, t)
	}
}

// Arch is the model's architecture, such as llama or qwen3; empty when the
// file does not say.
func (f *File) Arch() string {
	s, _ := f.Meta["general.architecture"].(string)
	return s
}

// ArchUint is a whole number from the architecture's own metadata:
// ArchUint("block_count") reads llama.block_count of a llama. It is false when
// the file does not have it as one number.
func (f *File) ArchUint(name string) (uint64, bool) {
	return f.Uint(f.Arch() + "." + name)
}

// Uint is a metadata value of any whole-number type; false when there is none
// or it is negative.
func (f *File) Uint(key string) (uint64, bool) {
	switch v := f.Meta[key].(type) {
	case uint8:
		return uint64(v), true
	case uint16:
		return uint64(v), true
	case uint32:
		return uint64(v), true
	case uint64:
		return v, true
	case int8:
		return uint64(v), v >= 0
	case int16:
		return uint64(v), v >= 0
	case int32:
		return uint64(v), v >= 0
	case int64:
		return uint64(v), v >= 0
	}
	return 0, false
}

// WeightBytes is the size of all tensors whose name begins with prefix ("" for
// all); false when the type of one is not known.
func (f *File) WeightBytes(prefix string) (int64, bool) {
	var sum int64
	for _, t := range f.Tensors {
		if !strings.HasPrefix(t.Name, prefix) {
			continue
		}
		n, ok := t.Bytes()
		if !ok {
			return 0, false
		}
		sum += n
	}
	return sum, true
}

// valueType is the type tag of a metadata value (enum gguf_type).
type valueType uint32

const (
	tUint8 valueType = iota
	tInt8
	tUint16
	tInt16
	tUint32
	tInt32
	tFloat32
	tBool
	tString
	tArray
	tUint64
	tInt64
	tFloat64
)

// decoder reads little-endian values. After its first error it returns zeros,
// so that callers check once. left bounds every length it reads.
type decoder struct {
	r    *bufio.Reader
	left int64
	buf  [8]byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
}

// fill reads len(p) bytes, or zeroes p.
func (d *decoder) fill(p []byte) {
	if d.err == nil && int64(len(p)) > d.left {
		d.fail("it ends inside the header")
	}
	if d.err == nil {
		if _, err := io.ReadFull(d.r, p); err != nil {
			d.err = err
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				d.err = nil
				d.fail("it ends inside the header")
			}
		}
	}
	if d.err != nil {
		clear(p)
		return
	}
	d.left -= int64(len(p))
}

func (d *decoder) bytes(n int) []byte { d.fill(d.buf[:n]); return d.buf[:n] }
func (d *decoder) uint32() uint32     { return binary.LittleEndian.Uint32(d.bytes(4)) }
func (d *decoder) uint64() uint64     { return binary.LittleEndian.Uint64(d.bytes(8)) }

// count reads the number of items that follow, each of at least size bytes.
func (d *decoder) count(size int64) int {
	n := d.uint64()
	if d.err == nil && n > uint64(d.left/size) {
		d.fail("it announces %d items where at most %d fit: cut short, or not what it seems", n, d.left/size)
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.count(1)
	if n == 0 {
		return ""
	}
	b := make([]byte, n)
	d.fill(b)
	if d.err != nil {
		return ""
	}
	return string(b)
}

func (d *decoder) value(t valueType, inArray bool) any {
	switch t {
	case tUint8:
		return d.bytes(1)[0]
	case tInt8:
		return int8(d.bytes(1)[0])
	case tUint16:
		return binary.LittleEndian.Uint16(d.bytes(2))
	case tInt16:
		return int16(binary.LittleEndian.Uint16(d.bytes(2)))
	case tUint32:
		return d.uint32()
	case tInt32:
		return int32(d.uint32())
	case tFloat32:
		return math.Float32frombits(d.uint32())
	case tBool:
		return d.bool()
	case tString:
		return d.string()
	case tUint64:
		return d.uint64()
	case tInt64:
		return int64(d.uint64())
	case tFloat64:
		return math.Float64frombits(d.uint64())
	case tArray:
		if inArray { // llama.cpp refuses them too
			d.fail("arrays inside arrays are not in use")
			return nil
		}
		return d.array()
	}
	d.fail("unknown value type %d", t)
	return nil
}

func (d *decoder) bool() bool {
	b := d.bytes(1)[0]
	if b > 1 {
		d.fail("%d is neither true nor false", b)
	}
	return b == 1
}

func (d *decoder) array() any {
	switch t := valueType(d.uint32()); t {
	case tUint8:
		return slice(d, 1, func() uint8 { return d.bytes(1)[0] })
	case tInt8:
		return slice(d, 1, func() int8 { return int8(d.bytes(1)[0]) })
	case tUint16:
		return slice(d, 2, func() uint16 { return binary.LittleEndian.Uint16(d.bytes(2)) })
	case tInt16:
		return slice(d, 2, func() int16 { return int16(binary.LittleEndian.Uint16(d.bytes(2))) })
	case tUint32:
		return slice(d, 4, d.uint32)
	case tInt32:
		return slice(d, 4, func() int32 { return int32(d.uint32()) })
	case tFloat32:
		return slice(d, 4, func() float32 { return math.Float32frombits(d.uint32()) })
	case tBool:
		return slice(d, 1, d.bool)
	case tString:
		return slice(d, 8, d.string)
	case tUint64:
		return slice(d, 8, d.uint64)
	case tInt64:
		return slice(d, 8, func() int64 { return int64(d.uint64()) })
	case tFloat64:
		return slice(d, 8, func() float64 { return math.Float64frombits(d.uint64()) })
	default:
		return d.value(t, true)
	}
}

// slice reads an array whose items take at least size bytes each.
func slice[T any](d *decoder, size int64, item func() T) []T {
	n := d.count(size)
	s := make([]T, 0, n)
	for range n {
		s = append(s, item())
		if d.err != nil {
			return nil
		}
	}
	return s
}

func (d *decoder) tensor() Tensor {
	t := Tensor{Name: d.string()}
	dims := d.uint32()
	if dims > maxDims {
		d.fail("tensor %.80q has %d dimensions, more than %d", t.Name, dims, maxDims)
		return t
	}
	total := uint64(1)
	for range dims {
		n := d.uint64()
		hi, lo := bits.Mul64(total, n)
		// 2^56 values: with at most 8 bytes each their size fits an int64.
		if hi != 0 || lo > 1<<56 || n > 1<<56 {
			d.fail("tensor %.80q has more values than any file can hold", t.Name)
			return t
		}
		total = lo
		t.Dims = append(t.Dims, int64(n))
	}
	t.Type = Type(d.uint32())
	if b, ok := blocks[t.Type]; ok && d.err == nil && dims > 0 && t.Dims[0]%b.values != 0 {
		d.fail("tensor %.80q has rows of %d values, which %s cannot hold", t.Name, t.Dims[0], t.Type)
	}
	offset := d.uint64()
	if offset > 1<<62 {
		d.fail("tensor %.80q begins beyond any file", t.Name)
	}
	t.Offset = int64(offset)
	return t
}
