package openai

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"millrace/internal/llm"
)

// Metrics is what a /metrics page holds. It is read here and not with
// prometheus/common/expfmt: that brings protobuf and its models along for a
// format of one sample to a line, of which some fifteen names are wanted.
type Metrics []Sample

// Sample is one line: a name, its labels, its value.
type Sample struct {
	Name   string
	Labels map[string]string
	Value  float64
}

// ParseMetrics reads the Prometheus text format (version 0.0.4), and
// OpenMetrics so far as both are alike. Lines that are neither are skipped.
func ParseMetrics(page []byte) Metrics {
	var out Metrics
	for raw := range bytes.Lines(page) {
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' {
			continue
		}
		if s, ok := parseSample(line); ok {
			out = append(out, s)
		}
	}
	return out
}

func parseSample(line string) (Sample, bool) {
	i := strings.IndexAny(line, "{ \t")
	if i <= 0 {
		return Sample{}, false
	}
	s := Sample{Name: line[:i]}
	rest := line[i:]
	if rest[0] == '{' {
		var ok bool
		if s.Labels, rest, ok = parseLabels(rest[1:]); !ok {
			return Sample{}, false
		}
	}
	value, _, _ := strings.Cut(strings.TrimLeft(rest, " \t"), " ") // a timestamp may follow
	v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil {
		return Sample{}, false
	}
	s.Value = v
	return s, true
}

// parseLabels reads name="value", … up to the brace.
func parseLabels(s string) (labels map[string]string, rest string, ok bool) {
	labels = map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t,")
		if after, done := strings.CutPrefix(s, "}"); done {
			return labels, after, true
		}
		name, after, found := strings.Cut(s, "=")
		after = strings.TrimLeft(after, " \t")
		if !found || !strings.HasPrefix(after, `"`) {
			return nil, "", false
		}
		var v strings.Builder
		i := 1
		for ; i < len(after) && after[i] != '"'; i++ {
			if after[i] != '\\' || i+1 == len(after) {
				v.WriteByte(after[i])
				continue
			}
			i++
			if after[i] == 'n' {
				v.WriteByte('\n')
			} else {
				v.WriteByte(after[i])
			}
		}
		if i == len(after) {
			return nil, "", false
		}
		labels[strings.TrimSpace(name)] = v.String()
		s = after[i+1:]
	}
}

// sum adds the series of the first of the names that is there: a server has
// one for each of its engines, and a name may have changed over its releases.
// model, where it is not "", leaves out other models' series.
func (m Metrics) sum(model string, names ...string) *float64 {
	for _, name := range names {
		var total float64
		found := false
		for _, s := range m {
			if s.Name == name && s.of(model) && s.finite() {
				total += s.Value
				found = true
			}
		}
		if found {
			return &total
		}
	}
	return nil
}

// highest is the same for what cannot be added up.
func (m Metrics) highest(model string, names ...string) *float64 {
	for _, name := range names {
		var most *float64
		for _, s := range m {
			if s.Name == name && s.of(model) && s.finite() && (most == nil || s.Value > *most) {
				most = new(s.Value)
			}
		}
		if most != nil {
			return most
		}
	}
	return nil
}

// of reports whether a series is about a model; vLLM names it in a label.
func (s Sample) of(model string) bool {
	name, ok := s.Labels["model_name"]
	return model == "" || !ok || name == model
}

// finite reports whether a value is a number that JSON can hold.
func (s Sample) finite() bool { return !math.IsNaN(s.Value) && !math.IsInf(s.Value, 0) }

func (m Metrics) mean(model string, names ...string) *llm.Mean {
	for _, name := range names {
		sum, count := m.sum(model, name+"_sum"), m.sum(model, name+"_count")
		if sum != nil && count != nil {
			return &llm.Mean{Sum: *sum, Count: *count}
		}
	}
	return nil
}

// info is the labels of a series that only has labels.
func (m Metrics) info(name string) map[string]string {
	for _, s := range m {
		if s.Name == name {
			return s.Labels
		}
	}
	return nil
}

// total gives a counter's name with and without the suffix that it got in
// time, as for vLLM's.
func total(name string) []string { return []string{name + "_total", name} }

// llamaCounters reads llama-server's page (tools/server/README.md). Its two
// ratios of a run (prompt_tokens_seconds, predicted_tokens_seconds) are left
// out, as they are since the last time that somebody looked.
func (m Metrics) llamaCounters(c *llm.Counters) {
	const p = "llamacpp:"
	c.Processing = m.sum("", p+"requests_processing")
	c.Waiting = m.sum("", p+"requests_deferred")
	c.KVUsage = m.highest("", p+"kv_cache_usage_ratio") // no longer given
	c.PromptTokens = m.sum("", p+"prompt_tokens_total")
	c.PromptSeconds = m.sum("", p+"prompt_seconds_total")
	c.GeneratedTokens = m.sum("", p+"tokens_predicted_total")
	c.GeneratedSeconds = m.sum("", p+"tokens_predicted_seconds_total")
	c.Decodes = m.sum("", p+"n_decode_total")
	c.SlotsPerDecode = m.highest("", p+"n_busy_slots_per_decode")
	c.LongestTokens = m.highest("", p+"n_tokens_max", p+"n_past_max")
	c.DraftTokens = m.sum("", p+"spec_decode_num_draft_tokens_total")
	c.DraftAccepted = m.sum("", p+"spec_decode_num_accepted_tokens_total")
}

// vllmCounters reads vLLM's page (docs, Production Metrics), under the names
// of its V0 and V1 engines.
func (m Metrics) vllmCounters(c *llm.Counters, model string) {
	const p = "vllm:"
	c.Processing = m.sum(model, p+"num_requests_running")
	c.Waiting = m.sum(model, p+"num_requests_waiting")
	c.KVUsage = m.highest(model, p+"kv_cache_usage_perc", p+"gpu_cache_usage_perc")
	c.Preemptions = m.sum(model, total(p+"num_preemptions")...)
	c.PromptTokens = m.sum(model, total(p+"prompt_tokens")...)
	c.GeneratedTokens = m.sum(model, total(p+"generation_tokens")...)
	c.PrefixQueries = m.sum(model, p+"prefix_cache_queries_total", p+"prefix_cache_queries", p+"gpu_prefix_cache_queries_total", p+"gpu_prefix_cache_queries")
	c.PrefixHits = m.sum(model, p+"prefix_cache_hits_total", p+"prefix_cache_hits", p+"gpu_prefix_cache_hits_total", p+"gpu_prefix_cache_hits")
	c.DraftTokens = m.sum(model, total(p+"spec_decode_num_draft_tokens")...)
	c.DraftAccepted = m.sum(model, total(p+"spec_decode_num_accepted_tokens")...)
	c.FirstToken = m.mean(model, p+"time_to_first_token_seconds")
	c.PerToken = m.mean(model, p+"inter_token_latency_seconds", p+"time_per_output_token_seconds")
	c.EndToEnd = m.mean(model, p+"e2e_request_latency_seconds")
	c.QueueTime = m.mean(model, p+"request_queue_time_seconds")
	if prefill := m.mean(model, p+"request_prefill_time_seconds"); prefill != nil {
		c.PromptSeconds = &prefill.Sum
	}
	if decode := m.mean(model, p+"request_decode_time_seconds"); decode != nil {
		c.GeneratedSeconds = &decode.Sum
	}
}
