package roofline

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Published is one measurement of one stream's speed that somebody published.
type Published struct {
	GPU          string   `json:"gpu"` // as the driver names it
	GPUGB        *float64 `json:"gpu_gb,omitempty"`
	Model        string   `json:"model"`
	ParamsB      *float64 `json:"params_b,omitempty"` // 10^9 parameters
	Quantisation string   `json:"quantisation,omitempty"`
	Server       string   `json:"server,omitempty"`
	TokensPerS   float64  `json:"tokens_per_s"`
	Low          *float64 `json:"low,omitempty"` // the source's own spread
	High         *float64 `json:"high,omitempty"`
	Source       string   `json:"source"`

	// Set says what the row is for: "fit" rows set the coefficients of the
	// band, "check" rows and "held-out" ones did not. State is "ok" or why the
	// row says nothing about one healthy GPU.
	Set   string `json:"set"`
	State string `json:"state"`

	shape Model
	load  Load
}

// ModelClass is what makes two models alike in speed. Zero values match all.
type ModelClass struct {
	ParamsB      float64 // 10^9 parameters, within 15 %
	Quantisation string  // Q4_K_M; case does not matter
}

//go:embed published.csv
var publishedCSV string

var published = sync.OnceValues(func() ([]Published, error) { return parsePublished(strings.NewReader(publishedCSV)) })

// PublishedSpeeds returns the rows of the GPU with the given driver name and of
// models of the class, healthy ones only, best known first: nearest in size,
// then as in the table. An empty name is every GPU.
func PublishedSpeeds(gpu string, c ModelClass) []Published {
	all, _ := published()
	var rows []Published
	for _, p := range all {
		if gpu != "" && canonical(p.GPU) != canonical(gpu) || p.State != "ok" {
			continue
		}
		if c.Quantisation != "" && !strings.EqualFold(p.Quantisation, c.Quantisation) || c.distance(p) > 0.15 {
			continue
		}
		rows = append(rows, p)
	}
	slices.SortStableFunc(rows, func(a, b Published) int {
		switch d := c.distance(a) - c.distance(b); {
		case d < 0:
			return -1
		case d > 0:
			return 1
		}
		return 0
	})
	return rows
}

// distance is how far a row's size is from the class's, as a share; infinite
// when the row does not say.
func (c ModelClass) distance(p Published) float64 {
	switch {
	case c.ParamsB <= 0:
		return 0
	case p.ParamsB == nil:
		return math.Inf(1)
	}
	return math.Abs(*p.ParamsB-c.ParamsB) / c.ParamsB
}

const publishedColumns = "gpu,gpu_gb,model,params_b,quant,server,tok_s,tok_s_low,tok_s_high,context,token_bytes,layers,expert_bytes,kv_bytes,host_ms,set,state,source"

func parsePublished(r io.Reader) ([]Published, error) {
	table, err := readTable(r, "table of speeds", publishedColumns)
	if err != nil {
		return nil, err
	}
	rows := make([]Published, 0, len(table))
	for _, f := range table {
		n := fields{row: f}
		p := Published{
			GPU: f[0], GPUGB: n.number(1), Model: f[2], ParamsB: n.number(3), Quantisation: f[4], Server: f[5],
			Low: n.number(7), High: n.number(8), Set: f[15], State: f[16], Source: f[17],
			shape: Model{TokenBytes: n.bytes(10), Layers: n.bytes(11), ExpertBytes: n.bytes(12), KVBytesPerToken: n.bytes(13)},
		}
		if rate := n.number(6); rate != nil {
			p.TokensPerS = *rate
		} else {
			n.err = errors.New("no speed")
		}
		if context := n.whole(9); context != nil {
			p.load.Context = *context
		}
		if low, high, ok := strings.Cut(f[14], "|"); ok {
			for i, s := range []string{low, high} {
				if p.load.HostMs[i], err = strconv.ParseFloat(s, 64); err != nil {
					n.err = err
				}
			}
		}
		if n.err != nil {
			return nil, fmt.Errorf("table of speeds, %q on %q: %w", p.Model, p.GPU, n.err)
		}
		rows = append(rows, p)
	}
	return rows, nil
}

func (p *fields) bytes(i int) *int64 {
	x := p.number(i)
	if x == nil {
		return nil
	}
	return new(int64(*x))
}
