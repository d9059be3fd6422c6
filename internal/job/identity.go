package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"millrace/internal/record"
)

// Parts are the parts of a job that change its answers, as short hashes, so
// that a cache can say which of them changed.
type Parts struct {
	Version int
	Options string // of all options but max_tokens, which changes no complete answer
	Schema  string
	Prompt  string // of system text, template and the way values are fenced
	Pack    int
}

// Parts returns the identity of the job's parts. It does no caching of its
// own; keep the result.
func (j *Job) Parts() Parts {
	o := j.Options
	o.MaxTokens = nil
	options, err := json.Marshal(o)
	if err != nil { // plain numbers and texts; infinities are refused
		options = []byte(err.Error())
	}
	return Parts{
		Version: j.Version,
		Options: shortHash(string(options)),
		Schema:  shortHash(string(j.schema.raw)),
		Prompt:  shortHash(fenceVersion, j.system, j.prompt),
		Pack:    j.Pack,
	}
}

// shortHash is 64 bits of SHA-256 in hex. The lengths keep the texts apart.
func shortHash(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		h.Write([]byte(strconv.Itoa(len(t))))
		h.Write([]byte{':'})
		h.Write([]byte(t))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// InputHash returns 8 bytes for each input field, in their order: zeros for a
// field that is absent or null, else 64 bits of a hash of its value.
func (j *Job) InputHash(r record.Record) []byte {
	out := make([]byte, 8*len(j.Input))
	space := j.buffer()
	defer j.keep(space)
	for i, f := range j.Input {
		v, _ := r.Get(f)
		// A text and a JSON string ask the same question.
		buf := append(space.b[:0], 's')
		if v.IsText() {
			buf = append(buf, v.String()...)
		} else {
			raw := v.JSON()
			switch {
			case string(raw) == "null":
				continue
			case raw[0] == '"':
				buf = append(buf, v.String()...)
			default:
				buf[0] = 'j'
				buf = append(buf, raw...)
			}
		}
		space.b = buf
		sum := sha256.Sum256(buf)
		copy(out[8*i:], sum[:8])
	}
	return out
}

// RecordKey is what the record is known by: the value of the Key field, or
// where it has none INPUT#POSITION. input is the base name of the input.
func (j *Job) RecordKey(r record.Record, input string) string {
	if j.Key != "" {
		v, _ := r.Get(j.Key)
		if s := v.String(); s != "" {
			return s
		}
	}
	return input + "#" + strconv.FormatInt(r.Pos, 10)
}
