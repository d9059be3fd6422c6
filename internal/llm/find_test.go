package llm_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/llm"
)

func TestPickModel(t *testing.T) {
	small, big := llm.Model{Name: "small:latest"}, llm.Model{Name: "big:70b"}
	loaded := llm.Model{Name: "big:70b", Loaded: true}
	cloud := llm.Model{Name: "huge-cloud", Remote: true}
	cloudLoaded := llm.Model{Name: "huge-cloud", Remote: true, Loaded: true}
	for _, tt := range []struct {
		about  string
		models []llm.Model
		name   string
		want   string
		err    []string // what the error has to hold
	}{
		{"by name", []llm.Model{small, big}, "big:70b", "big:70b", nil},
		{"by name without a tag", []llm.Model{small, big}, "small", "small:latest", nil},
		{"by a name it does not have", []llm.Model{small, loaded}, "big", "", []string{`"big"`, "small:latest, big:70b (loaded)"}},
		{"by name, with none at all", nil, "x", "", []string{`"x"`, "none"}},
		{"the loaded one", []llm.Model{small, loaded}, "", "big:70b", nil},
		{"the only one", []llm.Model{small}, "", "small:latest", nil},
		{"several", []llm.Model{small, big}, "", "", []string{"--model", "small:latest, big:70b"}},
		{"several loaded", []llm.Model{loaded, {Name: "b", Loaded: true}}, "", "", []string{"--model"}},
		{"none", nil, "", "", []string{"ollama pull"}},
		{"the only one on this machine", []llm.Model{small, cloudLoaded}, "", "small:latest", nil},
		{"a remote one only by name", []llm.Model{cloud}, "", "", []string{"computed elsewhere", "huge-cloud (remote)"}},
		{"a remote one by name", []llm.Model{small, cloud}, "huge-cloud", "huge-cloud", nil},
	} {
		t.Run(tt.about, func(t *testing.T) {
			got, err := llm.PickModel(tt.models, tt.name)
			if got.Name != tt.want || (err == nil) != (tt.err == nil) {
				t.Fatalf("got %q, %v; want %q", got.Name, err, tt.want)
			}
			for _, part := range tt.err {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
		})
	}
}

type stub struct{ llm.Server }

func (stub) Info() llm.Info { return llm.Info{Kind: "stub"} }

func TestFind(t *testing.T) {
	down := &llm.Error{Kind: llm.Unreachable, Message: "connection refused"}
	var asked []string
	opener := func(name string, answers map[string]error) llm.Opener {
		return func(_ context.Context, url string) (llm.Server, error) {
			asked = append(asked, name+" "+url)
			err, ok := answers[url]
			if !ok {
				err = down
			}
			if err != nil {
				return nil, err
			}
			return stub{}, nil
		}
	}
	a := opener("a", map[string]error{"//other": llm.ErrNotMine, "//b": llm.ErrNotMine})
	b := opener("b", map[string]error{"//other": llm.ErrNotMine, "//b": nil})
	openers := []llm.Opener{a, b}

	s, err := llm.Find(t.Context(), []llm.Candidate{{URL: "//down", Source: "x"}, {URL: "//other", Source: "y"}, {URL: "//b", Source: "z"}, {URL: "//never"}}, openers)
	if err != nil || s.Info().Kind != "stub" {
		t.Fatalf("got %v, %v", s, err)
	}
	// Nothing answers at the first address, so the second opener is not tried.
	if diff := cmp.Diff([]string{"a //down", "a //other", "b //other", "a //b", "b //b"}, asked); diff != "" {
		t.Errorf("order of attempts (-want +got):\n%s", diff)
	}

	_, err = llm.Find(t.Context(), []llm.Candidate{{URL: "//down", Source: "OLLAMA_HOST"}, {URL: "//other", Source: "usual port"}}, openers)
	if !errors.Is(err, llm.ErrNoServer) {
		t.Errorf("got %v, want ErrNoServer", err)
	}
	for _, part := range []string{"//down (OLLAMA_HOST)", "connection refused", "//other (usual port)", "neither"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}

	_, err = llm.Find(t.Context(), []llm.Candidate{{URL: "//down", Source: "--server", Must: true}, {URL: "//b"}}, openers)
	if llm.KindOf(err) != llm.Unreachable || !strings.Contains(err.Error(), "--server") || errors.Is(err, llm.ErrNoServer) {
		t.Errorf("a named server that is down gave %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = llm.Find(ctx, []llm.Candidate{{URL: "//down"}, {URL: "//b"}}, openers); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestUnaccounted(t *testing.T) {
	four := llm.Timing{Total: new(time.Duration(10)), Load: new(time.Duration(1)), Prefill: new(time.Duration(2)), Decode: new(time.Duration(3))}
	if d := four.Unaccounted(); d == nil || *d != 4 {
		t.Errorf("got %v, want 4", d)
	}
	four.Total = new(time.Duration(5)) // cached tokens counted twice must not give a negative rest
	if d := four.Unaccounted(); d == nil || *d != 0 {
		t.Errorf("got %v, want 0", d)
	}
	four.Load = nil
	if d := four.Unaccounted(); d != nil {
		t.Errorf("got %v, want unknown", *d)
	}
}
