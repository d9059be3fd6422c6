package record

import (
	"errors"
	"io"
)

// Peek reads up to n records ahead and returns a Reader that gives them again,
// and the names of all fields that they have, in the order of their first
// appearance. Records that cannot be read count and are given again too.
func Peek(r Reader, n int) (Reader, []string, error) {
	p := &peeked{Reader: r}
	var names []string
	seen := map[string]bool{}
	for range n {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if _, bad := errors.AsType[*BadRecord](err); err != nil && !bad {
			return nil, nil, err
		}
		p.ahead = append(p.ahead, ahead{rec, err})
		for _, f := range rec.Fields {
			if !seen[f.Name] {
				seen[f.Name] = true
				names = append(names, f.Name)
			}
		}
	}
	return p, names, nil
}

type peeked struct {
	Reader
	ahead []ahead
}

type ahead struct {
	rec Record
	err error
}

func (p *peeked) Next() (Record, error) {
	if len(p.ahead) == 0 {
		return p.Reader.Next()
	}
	a := p.ahead[0]
	p.ahead = p.ahead[1:]
	return a.rec, a.err
}
