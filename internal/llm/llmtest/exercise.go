// Package llmtest is for tests of what uses a model server: a suite that each
// llm.Server has to pass, and a fake server that speaks the real protocols and
// answers by a script.
package llmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"millrace/internal/llm"
)

// Traits says what a live server can be held to. The zero value but for Model
// is a server that can do all and answers at once.
type Traits struct {
	Model string // a model that the server has

	AnyModel         bool // it answers for models that it does not have
	NoSchema         bool // it does not constrain answers
	NoLimit          bool // it does not cut answers at MaxTokens
	NotDeterministic bool // temperature 0 and a seed do not fix the answer

	// Slow takes long enough to be cancelled in the middle; nil skips that.
	Slow *llm.Request
	// TooLong does not fit the model's context; nil skips that.
	TooLong *llm.Request
}

// Exercise checks what llm.Server and its optional interfaces promise, against
// a live counterpart. The server is opened anew for each part.
func Exercise(t *testing.T, open func(t *testing.T) llm.Server, traits Traits) {
	t.Helper()
	parts := []struct {
		name string
		skip bool
		run  func(*testing.T, llm.Server, Traits)
	}{
		{"info", false, exerciseInfo},
		{"models", false, exerciseModels},
		{"ask", false, exerciseAsk},
		{"schema", traits.NoSchema, exerciseSchema},
		{"bad schema", traits.NoSchema, exerciseBadSchema},
		{"limit", traits.NoLimit, exerciseLimit},
		{"stream", false, exerciseStream},
		{"stream given up", false, exerciseStreamGivenUp},
		{"concurrent", false, exerciseConcurrent},
		{"cancelled", false, exerciseCancelled},
		{"cancelled midway", traits.Slow == nil, exerciseCancelledMidway},
		{"unknown model", traits.AnyModel, exerciseUnknownModel},
		{"too long", traits.TooLong == nil, exerciseTooLong},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			if p.skip {
				t.Skip("not among this server's traits")
			}
			p.run(t, open(t), traits)
		})
	}
}

// question is a short request with a fixed answer.
func question(traits Traits) llm.Request {
	zero, seed, limit := 0.0, int64(1), 12
	return llm.Request{
		Model: traits.Model,
		Messages: []llm.Message{
			{Role: llm.System, Content: "You answer in a few words. ¿Ünïcode? \"quotes\" \\ and\nlines."},
			{Role: llm.User, Content: "Name a colour."},
		},
		Options: llm.Options{Temperature: &zero, Seed: &seed, MaxTokens: &limit},
	}
}

func exerciseInfo(t *testing.T, s llm.Server, _ Traits) {
	info := s.Info()
	if info.Kind == "" {
		t.Error("Info().Kind is empty")
	}
	if info.URL == "" || strings.HasSuffix(info.URL, "/") || strings.Contains(info.URL, "@") {
		t.Errorf("Info().URL = %q, want an address without trailing slash and credentials", info.URL)
	}
}

func exerciseModels(t *testing.T, s llm.Server, traits Traits) {
	l, ok := s.(llm.Lister)
	if !ok {
		t.Skip("no Lister")
	}
	models, err := l.Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := llm.PickModel(models, traits.Model); err != nil {
		t.Error(err)
	}
	for _, m := range models {
		if m.Name == "" {
			t.Errorf("model without a name: %+v", m)
		}
		if m.Bytes != nil && *m.Bytes <= 0 {
			t.Errorf("model %s has %d bytes; unknown is nil", m.Name, *m.Bytes)
		}
	}
}

func exerciseAsk(t *testing.T, s llm.Server, traits Traits) {
	reply, err := s.Ask(t.Context(), question(traits))
	if err != nil {
		t.Fatal(err)
	}
	checkReply(t, reply)
	if reply.Timing.FirstToken != nil || reply.Timing.LastToken != nil {
		t.Error("Ask gave times of tokens, which only a stream can know")
	}
	if reply.Simulated != s.Info().Simulated {
		t.Errorf("reply says simulated %q, Info says %q", reply.Simulated, s.Info().Simulated)
	}
}

func checkReply(t *testing.T, r llm.Reply) {
	t.Helper()
	switch r.Finish {
	case llm.FinishStop, llm.FinishLength, llm.FinishOther:
	default:
		t.Errorf("Finish = %q", r.Finish)
	}
	if r.Timing.Wall < 0 {
		t.Errorf("Wall = %v", r.Timing.Wall)
	}
	for name, n := range map[string]*int{"prompt": r.PromptTokens, "cached": r.CachedTokens, "completion": r.CompletionTokens} {
		if n != nil && *n < 0 {
			t.Errorf("%s tokens = %d", name, *n)
		}
	}
	for name, d := range map[string]*time.Duration{"total": r.Timing.Total, "load": r.Timing.Load, "prefill": r.Timing.Prefill, "decode": r.Timing.Decode} {
		if d != nil && *d < 0 {
			t.Errorf("%s time = %v", name, *d)
		}
	}
}

// closedSchema allows a handful of answers only, so that even a model of
// random weights gives one. Its properties are in no alphabetical order.
const closedSchema = `{
	"type": "object",
	"properties": {
		"alpha": {"$ref": "#/$defs/size"},
		"beta": {"const": "fixed"},
		"gamma": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
		"omega": {"anyOf": [{"type": "null"}, {"enum": ["x", "y"]}]}
	},
	"required": ["alpha", "beta", "gamma", "omega"],
	"additionalProperties": false,
	"$defs": {"size": {"type": "string", "enum": ["small", "large"], "description": "how big"}}
}`

func exerciseSchema(t *testing.T, s llm.Server, traits Traits) {
	req := question(traits)
	limit := 400
	req.MaxTokens = &limit
	req.Schema = json.RawMessage(closedSchema)
	reply, err := s.Ask(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	checkReply(t, reply)
	var got struct {
		Alpha string  `json:"alpha"`
		Beta  string  `json:"beta"`
		Gamma []bool  `json:"gamma"`
		Omega *string `json:"omega"`
	}
	dec := json.NewDecoder(strings.NewReader(reply.Text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("answer %q: %v", reply.Text, err)
	}
	if got.Alpha != "small" && got.Alpha != "large" || got.Beta != "fixed" || len(got.Gamma) != 2 ||
		got.Omega != nil && *got.Omega != "x" && *got.Omega != "y" {
		t.Errorf("answer %s does not fit the schema", reply.Text)
	}
	if names := topNames(t, reply.Text); strings.Join(names, " ") != "alpha beta gamma omega" {
		t.Errorf("properties came as %v, want the order of the schema", names)
	}
}

func topNames(t *testing.T, object string) []string {
	t.Helper()
	dec := jsontext.NewDecoder(strings.NewReader(object))
	if _, err := dec.ReadToken(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for dec.PeekKind() == jsontext.KindString {
		tok, err := dec.ReadToken()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, tok.String())
		if err := dec.SkipValue(); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func exerciseBadSchema(t *testing.T, s llm.Server, traits Traits) {
	req := question(traits)
	req.Schema = json.RawMessage(`{"$ref": "#"}`)
	_, err := s.Ask(t.Context(), req)
	if llm.KindOf(err) != llm.BadSchema {
		t.Errorf("a schema without end gave %v, want kind %s", err, llm.BadSchema)
	}
}

func exerciseLimit(t *testing.T, s llm.Server, traits Traits) {
	req := question(traits)
	limit := 2
	req.MaxTokens = &limit
	reply, err := s.Ask(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Finish != llm.FinishLength {
		t.Errorf("Finish = %q after %d tokens, want %q", reply.Finish, limit, llm.FinishLength)
	}
	if n := reply.CompletionTokens; n != nil && *n > limit {
		t.Errorf("%d tokens, limit %d", *n, limit)
	}
}

// wordy is a request whose answer has some text even from a model of random
// weights, which may well answer a question with unprintable bytes alone.
func wordy(traits Traits) llm.Request {
	req := question(traits)
	if !traits.NoSchema {
		limit := 400
		req.MaxTokens = &limit
		req.Schema = json.RawMessage(closedSchema)
	}
	return req
}

func exerciseStream(t *testing.T, s llm.Server, traits Traits) {
	st, ok := s.(llm.Streamer)
	if !ok {
		t.Skip("no Streamer")
	}
	var pieces strings.Builder
	reply, err := st.Stream(t.Context(), wordy(traits), func(text string) error {
		if text == "" {
			t.Error("empty piece")
		}
		pieces.WriteString(text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	checkReply(t, reply)
	if pieces.String() != reply.Text {
		t.Errorf("pieces make %q, reply is %q", pieces.String(), reply.Text)
	}
	first, last := reply.Timing.FirstToken, reply.Timing.LastToken
	switch {
	case reply.Text != "" && (first == nil || last == nil):
		t.Error("no time of the first and last token")
	case first != nil && (*first > *last || *last > reply.Timing.Wall):
		t.Errorf("first token %v, last %v, all %v", *first, *last, reply.Timing.Wall)
	}
	if traits.NotDeterministic {
		return
	}
	asked, err := s.Ask(t.Context(), wordy(traits))
	if err != nil {
		t.Fatal(err)
	}
	if asked.Text != reply.Text || asked.Finish != reply.Finish || asked.Thinking != reply.Thinking {
		t.Errorf("streamed %q (%s), asked %q (%s)", reply.Text, reply.Finish, asked.Text, asked.Finish)
	}
}

func exerciseStreamGivenUp(t *testing.T, s llm.Server, traits Traits) {
	st, ok := s.(llm.Streamer)
	if !ok {
		t.Skip("no Streamer")
	}
	enough := errors.New("enough")
	calls := 0
	_, err := st.Stream(t.Context(), wordy(traits), func(string) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("error %v after %d calls, want the callback's own after 1", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = st.Stream(ctx, wordy(traits), func(string) error { cancel(); return nil })
	cancel()
	if llm.KindOf(err) != llm.Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled in the callback: %v, want kind %s", err, llm.Canceled)
	}
}

func exerciseConcurrent(t *testing.T, s llm.Server, traits Traits) {
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			req := question(traits)
			req.Messages[1].Content = fmt.Sprintf("Name colour number %d.", i)
			_, errs[i] = s.Ask(t.Context(), req)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func exerciseCancelled(t *testing.T, s llm.Server, traits Traits) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Ask(ctx, question(traits))
	if llm.KindOf(err) != llm.Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v, want kind %s", err, llm.Canceled)
	}
	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = s.Ask(ctx, question(traits))
	if llm.KindOf(err) != llm.Timeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a past deadline: %v, want kind %s", err, llm.Timeout)
	}
}

func exerciseCancelledMidway(t *testing.T, s llm.Server, traits Traits) {
	slow := *traits.Slow
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(100*time.Millisecond, cancel).Stop()
	_, err := s.Ask(ctx, slow)
	if llm.KindOf(err) != llm.Canceled {
		t.Errorf("cancelled midway: %v, want kind %s", err, llm.Canceled)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = s.Ask(ctx, slow)
	if llm.KindOf(err) != llm.Timeout {
		t.Errorf("deadline midway: %v, want kind %s", err, llm.Timeout)
	}
	if _, err := s.Ask(t.Context(), question(traits)); err != nil {
		t.Errorf("the request after it: %v", err)
	}
}

func exerciseUnknownModel(t *testing.T, s llm.Server, traits Traits) {
	req := question(traits)
	req.Model = "no-such-model:nowhere"
	_, err := s.Ask(t.Context(), req)
	if llm.KindOf(err) != llm.NoModel {
		t.Fatalf("unknown model: %v, want kind %s", err, llm.NoModel)
	}
	if !strings.Contains(err.Error(), req.Model) {
		t.Errorf("error %q does not name the model", err)
	}
}

func exerciseTooLong(t *testing.T, s llm.Server, traits Traits) {
	_, err := s.Ask(t.Context(), *traits.TooLong)
	if llm.KindOf(err) != llm.TooLong {
		t.Errorf("prompt longer than the context: %v, want kind %s", err, llm.TooLong)
	}
}
