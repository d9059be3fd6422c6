package llm

import (
	"regexp"
	"testing"
)

func TestGBNFPattern(t *testing.T) {
	for _, tt := range []struct{ in, want string }{ // "" for refused
		{`^abc$`, `^abc$`},
		{`^[a-z]+$`, `^[a-z]+$`},
		{`^\d{4}-\d{2}$`, `^[0-9]{4}-[0-9]{2}$`},
		{`^[\d.]{1,3}$`, `^[0-9.]{1,3}$`},
		{`^\w+$`, `^[A-Za-z0-9_]+$`},
		{`^a\.b\-c\/d$`, `^a\.b-c/d$`},
		{`^[a\-z]$`, `^[az-]$`},
		{`^[-az]$`, `^[az-]$`},
		{`^[az-]$`, `^[az-]$`},
		{`^(?:a|b)+c?$`, `^(a|b)+c?$`},
		{`^((a)|(b))*$`, `^((a)|(b))*$`},
		{`^[à-ü]$`, `^[à-ü]$`},
		{`^a{2,}$`, `^a{2,}$`},
		{`abc`, ``},
		{`^abc`, ``},
		{`abc$`, ``},
		{`^$`, ``},
		{`^abc\$`, ``},
		{`^a|b$`, ``},
		{`^(a|)$`, ``},
		{`^.$`, ``},    // would let a bare quote into the answer
		{`^[^a]$`, ``}, // so would this
		{`^"$`, ``},
		{`^[!-~]$`, ``},
		{`^[",]$`, ``},
		{`^\\$`, ``},
		{`^\bx$`, ``},
		{`^\p{L}$`, ``},
		{`^(?=a)a$`, ``},
		{`^a+?$`, ``},
		{`^a{2000}$`, ``},
		{`^a{,3}$`, ``},
		{`^a{x}$`, ``},
		{`^a{2$`, ``},
		{`^(a$`, ``},
		{`^a)$`, ``},
		{`^()$`, ``},
		{`^[a$`, ``},
		{`^[z-a]$`, ``},
		{`^*a$`, ``},
		{`^a^b$`, ``},
		{"^a\nb$", ``},
	} {
		got, ok := gbnfPattern(tt.in)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: got %q, %v; want %q", tt.in, got, ok, tt.want)
		}
	}
}

// What passes has to be a pattern still, anchored, and its own translation.
func FuzzGBNFPattern(f *testing.F) {
	for _, s := range []string{`^[a-z\d.-]{1,3}(?:x|\.y)*$`, `^\w+\-\/$`, `^[à-ü]?$`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		got, ok := gbnfPattern(p)
		if !ok {
			return
		}
		if _, err := regexp.Compile(p); err != nil {
			return // no pattern to begin with
		}
		if _, err := regexp.Compile(got); err != nil {
			t.Fatalf("%q became %q: %v", p, got, err)
		}
		if again, ok := gbnfPattern(got); !ok || again != got {
			t.Fatalf("%q became %q, and that %q, %v", p, got, again, ok)
		}
	})
}
