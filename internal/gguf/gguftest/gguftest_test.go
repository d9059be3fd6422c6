package gguftest

import (
	"strings"
	"testing"
)

// TestShape8B: 8.03 billion weights at 4.5 bits and the norms at 32.
func TestShape8B(t *testing.T) {
	t.Parallel()
	o := Shape8B()
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	var weights, bytes int64
	for _, ts := range o.tensors() {
		n, ok := ts.Bytes()
		if !ok {
			t.Fatalf("%s has a type of unknown size", ts.Name)
		}
		weights += ts.Elements()
		bytes += n
	}
	// The parameter count that the model card of Llama 3.1 8B gives.
	if weights != 8_030_261_248 || bytes < 4_516_000_000 || bytes > 4_518_000_000 {
		t.Errorf("%d weights in %d bytes", weights, bytes)
	}
}

// TestVocabularyFindsWords: a word's beginnings have to be tokens, or the
// tokeniser never gets to it.
func TestVocabularyFindsWords(t *testing.T) {
	t.Parallel()
	v := vocabulary(0)
	have := map[string]bool{}
	for _, tok := range v {
		if have[tok.text] {
			t.Errorf("token %q is there twice", tok.text)
		}
		have[tok.text] = true
	}
	for _, tok := range v[259:] {
		for i := range tok.text {
			if i > 0 && !have[tok.text[:i]] {
				t.Errorf("token %q without its beginning %q", tok.text, tok.text[:i])
			}
		}
	}
	if !have["\u2581product"] || !have[`"properties"`] {
		t.Error("words are missing")
	}
	if n := len(vocabulary(5000)); n != 5000 {
		t.Errorf("%d tokens, want 5000", n)
	}
	for b := range 256 {
		if tok := v[3+b]; tok.kind != tokenByte || !strings.HasPrefix(tok.text, "<0x") {
			t.Errorf("no token for byte %d", b)
		}
	}
}
