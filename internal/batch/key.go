package batch

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"millrace/internal/job"
	"millrace/internal/llm"
)

// SubjectOf returns the subject of a record key.
func SubjectOf(recordKey string) Subject {
	h := sha256.Sum256([]byte("millrace subject\x00" + recordKey))
	return Subject(binary.LittleEndian.Uint64(h[:8])) //nolint:gosec // a hash: the sign means nothing
}

// keyer makes the keys of one job with one model. It is not safe for
// concurrent use; each worker has its own.
type keyer struct {
	base [32]byte // everything but the messages
	h    hash.Hash
	buf  []byte

	system    string // the system message last seen, equal for all records of a job
	systemSum [32]byte
}

// newKeyer returns a keyer for a job and model. A scope other than "" keeps
// the keys apart from those of every other scope.
func newKeyer(j *job.Job, model, scope string) *keyer {
	p := j.Parts()
	k := &keyer{h: sha256.New()}
	k.put("millrace key 1", j.Name, model, p.Options, p.Schema, scope)
	var n [16]byte
	binary.LittleEndian.PutUint64(n[:8], uint64(j.Version))
	binary.LittleEndian.PutUint64(n[8:], uint64(p.Pack))
	k.h.Write(n[:])
	k.h.Sum(k.base[:0])
	return k
}

func (k *keyer) put(parts ...string) {
	for _, s := range parts {
		k.buf = binary.LittleEndian.AppendUint64(k.buf[:0], uint64(len(s)))
		k.buf = append(k.buf, s...)
		k.h.Write(k.buf)
	}
}

// key identifies the question that the messages ask.
func (k *keyer) key(messages []llm.Message) Key {
	var sum [32]byte
	if len(messages) > 0 && messages[0].Role == llm.System && messages[0].Content != k.system {
		k.h.Reset()
		k.put(messages[0].Content)
		k.h.Sum(k.systemSum[:0])
		k.system = messages[0].Content
	}
	k.h.Reset()
	k.h.Write(k.base[:])
	for i, m := range messages {
		if i == 0 && m.Role == llm.System {
			k.put("system sum")
			k.h.Write(k.systemSum[:])
			continue
		}
		k.put(string(m.Role), m.Content)
	}
	k.h.Sum(sum[:0])
	return Key(sum[:16])
}

// Fingerprint hashes what makes a run the same run after an interruption.
func Fingerprint(parts ...string) Key {
	k := keyer{h: sha256.New()}
	k.put(parts...)
	return Key(k.h.Sum(nil)[:16])
}
