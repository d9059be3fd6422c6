package gguf

import (
	"encoding/json"
	"fmt"
	"math"
)

// FromShow reads the answer of Ollama's /api/show: model_info, and the list of
// tensors where the server sends one (0.17.4 always does). Without it, sizes
// are estimated from the shape for architectures whose tensors are known, and
// only if they add up to general.parameter_count.
func FromShow(answer []byte) (Footprint, error) {
	var show struct {
		ModelInfo map[string]json.RawMessage `json:"model_info"`
		Tensors   []struct {
			Name  string  `json:"name"`
			Type  string  `json:"type"`
			Shape []int64 `json:"shape"`
		} `json:"tensors"`
		Details struct {
			Quantisation string `json:"quantization_level"`
		} `json:"details"`
		RemoteHost string `json:"remote_host"`
	}
	if err := json.Unmarshal(answer, &show); err != nil {
		return Footprint{}, fmt.Errorf("answer of /api/show: %w", err)
	}
	f := &File{Meta: make(map[string]any, len(show.ModelInfo))}
	for key, raw := range show.ModelInfo {
		if v := metaValue(raw); v != nil {
			f.Meta[key] = v
		}
	}
	for _, t := range show.Tensors {
		n := int64(1)
		for _, d := range t.Shape {
			if d < 0 || d > 0 && n > (1<<56)/d {
				return Footprint{}, fmt.Errorf("answer of /api/show: tensor %.80q has an impossible shape", t.Name)
			}
			n *= d
		}
		f.Tensors = append(f.Tensors, Tensor{Name: t.Name, Dims: t.Shape, Type: typeNamed(t.Type)})
	}
	fp := f.facts()
	if fp.Quantisation == "" {
		fp.Quantisation = show.Details.Quantisation
	}
	switch {
	case len(f.Tensors) > 0:
		parts := make([]part, len(f.Tensors))
		for i, t := range f.Tensors {
			n, ok := t.Bytes()
			parts[i] = part{t.Name, t.Elements(), n, ok}
		}
		fp.add(parts, f.causal())
	case show.RemoteHost != "":
		fp.note("the model runs on another host: nothing is read on this machine")
	default:
		f.estimate(&fp)
	}
	return fp, nil
}

// metaValue turns a JSON value into what Read would have put into Meta; nil for
// null and for what no GGUF holds.
func metaValue(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
	case 't', 'f':
		return raw[0] == 't'
	case '[':
		var bools []bool
		if json.Unmarshal(raw, &bools) == nil && len(bools) > 0 {
			return bools
		}
		var whole []int64
		if json.Unmarshal(raw, &whole) == nil && len(whole) > 0 {
			return whole
		}
		var texts []string
		if json.Unmarshal(raw, &texts) == nil {
			return texts
		}
	case 'n', '{':
	default:
		var n uint64
		if json.Unmarshal(raw, &n) == nil {
			return n
		}
		var x float64
		if json.Unmarshal(raw, &x) == nil {
			if x == math.Trunc(x) && x >= 0 && x < 1<<53 { // 1.31072e+05
				return uint64(x)
			}
			return x
		}
	}
	return nil
}

// typeNamed is the type with the given name, and a number that no type has
// when there is none.
func typeNamed(name string) Type {
	for t, b := range blocks {
		if b.name == name {
			return t
		}
	}
	return math.MaxUint32
}
