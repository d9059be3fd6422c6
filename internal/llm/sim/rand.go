package sim

// rng is a small deterministic generator (splitmix64). The zero value is
// seeded with 0.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return mix(uint64(*r))
}

// intn returns a number from 0 to n-1; 0 for n < 1.
func (r *rng) intn(n int) int {
	if n < 1 {
		return 0
	}
	return int(r.next() % uint64(n))
}

// chance is true with the given probability. It draws in any case, so that one
// rate does not shift the others.
func (r *rng) chance(p float64) bool {
	return float64(r.next()>>11)/(1<<53) < p
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// hash is FNV-1a over s, continued from h and mixed at the end: the same on
// every machine and in every run.
func hash(h uint64, s string) uint64 {
	h ^= 0xcbf29ce484222325
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return mix(h)
}
