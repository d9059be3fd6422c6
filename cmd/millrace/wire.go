package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"millrace/internal/batch"
	"millrace/internal/job"
	"millrace/internal/llm"
	"millrace/internal/llm/ollama"
	"millrace/internal/llm/openai"
	"millrace/internal/sqlite"
)

// This file puts the parts together: which servers, jobs and stores there are.

// openers are the kinds of server, tried in this order.
func openers(hc *http.Client, apiKey string) []llm.Opener {
	return []llm.Opener{
		func(ctx context.Context, url string) (llm.Server, error) {
			s, err := ollama.Open(ctx, url, hc)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		func(ctx context.Context, url string) (llm.Server, error) {
			s, err := openai.Open(ctx, url, hc, apiKey)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
	}
}

// candidates are the addresses at which a server may be, best guess first.
func (a *app) candidates() ([]llm.Candidate, error) {
	if s := a.config.Server; s != "" {
		if s == "engine" {
			return nil, withHint(errors.New("Millrace has no engine of its own yet"), //nolint:staticcheck // a name
				"start Ollama, llama-server, vLLM or LM Studio, or try the simulator: millrace sim --profile rtx4060-laptop")
		}
		url, err := serverURL(s)
		if err != nil {
			return nil, err
		}
		source := "--server or millrace.yaml"
		for _, v := range a.config.Values() {
			if v.Key == "server" {
				source = v.Source
			}
		}
		return []llm.Candidate{{URL: url, Source: source, Must: true}}, nil
	}
	var c []llm.Candidate
	if h := a.env["OLLAMA_HOST"]; h != "" {
		if url, err := ollama.BaseURL(h); err == nil {
			c = append(c, llm.Candidate{URL: url, Source: "OLLAMA_HOST"})
		}
	}
	for _, p := range []struct{ port, what string }{
		{"11434", "Ollama"}, {"8080", "llama-server"}, {"8000", "vLLM"}, {"1234", "LM Studio"},
	} {
		c = append(c, llm.Candidate{URL: "http://127.0.0.1:" + p.port, Source: "usual port of " + p.what})
	}
	return c, nil
}

// serverURL completes what a user gave as the server: a bare host gets
// Ollama's port, as Ollama itself does it.
func serverURL(s string) (string, error) {
	url, err := ollama.BaseURL(s)
	if err != nil {
		return "", fmt.Errorf("server %s: %w", s, err)
	}
	return url, nil
}

// server finds the server and the model to use.
func (a *app) server() (llm.Server, llm.Model, error) {
	c, err := a.candidates()
	if err != nil {
		return nil, llm.Model{}, err
	}
	srv, err := a.find(c)
	if errors.Is(err, llm.ErrNoServer) {
		return nil, llm.Model{}, withHint(err, "start one (for example: ollama serve), name it with --server URL,\nor try the simulator: millrace sim --profile rtx4060-laptop")
	}
	if err != nil {
		return nil, llm.Model{}, err
	}
	m, err := a.pickModel(srv)
	return srv, m, err
}

// find opens the first candidate that answers, and waits for one that is still
// loading its model.
func (a *app) find(c []llm.Candidate) (llm.Server, error) {
	ctx, cancel := context.WithTimeout(a.ctx, a.config.Patience)
	defer cancel()
	kinds := openers(llm.NewHTTPClient(0), a.config.APIKey)
	for told := false; ; told = true {
		srv, err := llm.Find(a.ctx, c, kinds)
		if err == nil || llm.KindOf(err) != llm.Loading {
			return srv, err
		}
		if !told {
			a.note("the server is loading its model; waiting")
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (a *app) pickModel(srv llm.Server) (llm.Model, error) {
	l, ok := srv.(llm.Lister)
	if !ok {
		if a.config.Model == "" {
			return llm.Model{}, errors.New("the server cannot list its models; name one with --model")
		}
		return llm.Model{Name: a.config.Model}, nil
	}
	models, err := l.Models(a.ctx)
	if err != nil {
		return llm.Model{}, fmt.Errorf("models of %s: %w", srv.Info().URL, err)
	}
	return llm.PickModel(models, a.config.Model)
}

// store opens the state directory.
func (a *app) store() (batch.Store, error) {
	return sqlite.Open(a.ctx, a.config.State, sqlite.Options{})
}

// findJob returns the job that a name or path means.
func findJob(name string, params map[string]string) (*job.Job, error) {
	for _, b := range job.Builtins() {
		if b.Name == name {
			return b.New(params)
		}
	}
	ext := strings.ToLower(filepath.Ext(name))
	if ext == ".yaml" || ext == ".yml" || strings.ContainsAny(name, `/\`) {
		if len(params) > 0 {
			return nil, fmt.Errorf("%s: parameters (-p) belong to built-in jobs; a job file says everything itself", name)
		}
		return job.Load(name)
	}
	names := builtinNames()
	near := ""
	for _, n := range names {
		if levenshtein.ComputeDistance(n, name) <= 2 {
			near = fmt.Sprintf("; did you mean %q", n)
		}
	}
	if _, err := os.Stat(name + ".yaml"); err == nil {
		near = fmt.Sprintf("; did you mean the file %s.yaml", name)
	}
	return nil, fmt.Errorf("no job %q%s; built-in jobs: %s; a job of your own is a path that ends in .yaml", name, near, strings.Join(names, ", "))
}

func builtinNames() []string {
	var names []string
	for _, b := range job.Builtins() {
		names = append(names, b.Name)
	}
	slices.Sort(names)
	return names
}
