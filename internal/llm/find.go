package llm

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Opener tries to open the server at a base address. It returns ErrNotMine
// when something answers there but speaks another protocol.
type Opener func(ctx context.Context, url string) (Server, error)

// Candidate is an address at which a server may be found.
type Candidate struct {
	URL    string
	Source string // why it is tried, for messages: "--server", "OLLAMA_HOST", "usual port of Ollama"
	Must   bool   // the user named it: a failure here is the answer, nothing else is tried
}

// Find opens the first candidate that answers, trying each opener in turn.
// Its error names every address tried and what happened there.
func Find(ctx context.Context, candidates []Candidate, openers []Opener) (Server, error) {
	var tried []string
	for _, c := range candidates {
		srv, err := open(ctx, c.URL, openers)
		if err == nil {
			return srv, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if c.Must || KindOf(err) == Loading { // it is this one, if not yet
			return nil, fmt.Errorf("server %s (from %s): %w", c.URL, c.Source, err)
		}
		tried = append(tried, fmt.Sprintf("  %s (%s): %v", c.URL, c.Source, err))
	}
	return nil, fmt.Errorf("%w; tried\n%s", ErrNoServer, strings.Join(tried, "\n"))
}

// ErrNoServer means that no candidate answered.
var ErrNoServer = errors.New("no inference server found")

func open(ctx context.Context, url string, openers []Opener) (Server, error) {
	for _, o := range openers {
		srv, err := o(ctx, url)
		if errors.Is(err, ErrNotMine) {
			continue
		}
		return srv, err
	}
	return nil, errors.New("something answers, but it speaks neither Ollama's nor OpenAI's API")
}

// PickModel chooses the model to use: name if it is given (a missing tag means
// "latest"), else the one that is loaded, else the only one there is. A remote
// model has to be named: records may not leave the machine by default. The
// error lists what the server has.
func PickModel(models []Model, name string) (Model, error) {
	if name != "" {
		for _, m := range models {
			if m.Name == name || m.Name == name+":latest" {
				return m, nil
			}
		}
		return Model{}, fmt.Errorf("the server has no model %q; it has: %s", name, names(models))
	}
	var loaded, local []Model
	for _, m := range models {
		if m.Remote {
			continue
		}
		local = append(local, m)
		if m.Loaded {
			loaded = append(loaded, m)
		}
	}
	switch {
	case len(loaded) == 1:
		return loaded[0], nil
	case len(local) == 1:
		return local[0], nil
	case len(models) == 0:
		return Model{}, errors.New("the server has no models; install one first, for example: ollama pull llama3.1:8b")
	case len(local) == 0:
		return Model{}, fmt.Errorf("the server's models are computed elsewhere and are used only if named with --model: %s", names(models))
	}
	return Model{}, fmt.Errorf("the server has several models; choose one with --model: %s", names(models))
}

func names(models []Model) string {
	if len(models) == 0 {
		return "none"
	}
	s := make([]string, len(models))
	for i, m := range models {
		s[i] = m.Name
		switch {
		case m.Remote:
			s[i] += " (remote)"
		case m.Loaded:
			s[i] += " (loaded)"
		}
	}
	return strings.Join(s, ", ")
}
