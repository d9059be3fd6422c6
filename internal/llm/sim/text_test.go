package sim

import "testing"

func TestFenced(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"no fence":                             "no fence",
		"Judge <a>x</a> and <b>longer</b> now": "longer",
		"a < b and <open> never closed":        "a < b and <open> never closed",
		"<a><b>in</b></a>":                     "<b>in</b>",
		"":                                     "",
	} {
		if got := fenced(text); got != want {
			t.Errorf("fenced(%q) = %q, want %q", text, got, want)
		}
	}
}
