package sqlite

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"millrace/internal/batch"
)

func TestCodec(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	tests := []struct {
		name, text string
		form       byte
	}{
		{"empty", "", textRaw},
		{"short", `{"sentiment":"good"}`, textRaw},
		{"short and regular", strings.Repeat("a", shortest-1), textRaw},
		{"long and regular", strings.Repeat("a", shortest), textZstd},
		{"long and random", string(testKeys(20)), textRaw},
		{"very long", strings.Repeat("the same again ", 100_000), textZstd},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := c.pack([]byte(test.text))
			if b[0] != test.form {
				t.Errorf("form %d, want %d", b[0], test.form)
			}
			if len(b) > len(test.text)+1 {
				t.Errorf("%d bytes for a text of %d", len(b), len(test.text))
			}
			if got, err := c.unpack(b); err != nil || string(got) != test.text {
				t.Errorf("got %d bytes back (%v), want %d", len(got), err, len(test.text))
			}
		})
	}
}

func testKeys(n int) (b []byte) {
	for i := range n {
		k := testKey(i)
		b = append(b, k[:]...)
	}
	return b
}

func FuzzCodec(f *testing.F) {
	c, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{"", "\x00", "\x01", "\x02x", strings.Repeat("ab", 100)} {
		f.Add([]byte(text))
		f.Add(c.pack([]byte(text)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := c.unpack(c.pack(b)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%q came back as %q (%v)", b, got, err)
		}
		if _, err := c.unpack(b); err != nil && !errors.Is(err, errDamaged) {
			t.Errorf("unpacking %q: %v", b, err)
		}
	})
}

// TestDamagedRow: content that cannot be is an error that says what to do.
func TestDamagedRow(t *testing.T) {
	ctx := t.Context()
	for name, damage := range map[string]string{
		"text": "UPDATE answer SET text = x'09'",
		"key":  "UPDATE answer SET key = x'09'",
		"type": "PRAGMA writable_schema=1; UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'answer'; PRAGMA writable_schema=RESET; UPDATE answer SET expires = 'soon'",
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, t.TempDir(), Options{})
			if err := s.Save(ctx, []batch.Answer{testAnswer(1)}, nil, nil); err != nil {
				t.Fatal(err)
			}
			err := s.with(ctx, s.writer, func(c *conn) error { return c.script(context.Background(), damage) })
			if err != nil {
				t.Fatal(err)
			}
			_, look := s.Lookup(ctx, batch.Run{}, []batch.Key{testKey(1)})
			_, trail := s.Trail(ctx, 1)
			err = errors.Join(look, trail)
			if err == nil || !strings.Contains(err.Error(), damaged) || !strings.Contains(err.Error(), s.file) {
				t.Errorf("error %v", err)
			}
		})
	}
}
