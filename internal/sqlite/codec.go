package sqlite

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// The first byte of a stored text says how the rest is to be read.
const (
	textRaw  = 0
	textZstd = 1
)

// shortest is the length in bytes below which compressing is not tried. Of
// JSON answers of 120 bytes zstd takes 3 % off, of 200 bytes 21 %, of 1000
// bytes 59 %. A dictionary would do better on the short ones, but learnt from
// answers it would hold parts of records that Purge could not remove.
const shortest = 128

// codec packs texts for the file and unpacks them. Safe for concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(128<<10))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(256<<20)) // no answer is as long, whatever a damaged file says
	if err != nil {
		return nil, err
	}
	return &codec{enc: enc, dec: dec}, nil
}

// pack returns the stored form of a text: compressed where that takes at least
// an eighth off, for each reader pays for unpacking it.
func (c *codec) pack(text []byte) []byte {
	if len(text) >= shortest {
		b := make([]byte, 1, 1+len(text))
		b[0] = textZstd
		if b = c.enc.EncodeAll(text, b); len(b) <= len(text)-len(text)/8 {
			return b
		}
	}
	b := make([]byte, 0, 1+len(text))
	return append(append(b, textRaw), text...)
}

// unpack returns the text of a stored form. It may share its memory.
func (c *codec) unpack(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: a stored text has no form", errDamaged)
	}
	switch b[0] {
	case textRaw:
		return b[1:], nil
	case textZstd:
		text, err := c.dec.DecodeAll(b[1:], nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		return text, nil
	default:
		return nil, fmt.Errorf("%w: a stored text has the unknown form %d", errDamaged, b[0])
	}
}

func (c *codec) close() {
	c.dec.Close()
}
