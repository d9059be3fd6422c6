package job

import (
	"fmt"
	"strconv"
	"time"
)

// lifetimeUnits are the units of a lifetime, longest first.
func lifetimeUnits() []lifetimeUnit {
	const day = 24 * time.Hour
	return []lifetimeUnit{{'w', 7 * day}, {'d', day}, {'h', time.Hour}}
}

type lifetimeUnit struct {
	letter byte
	length time.Duration
}

// maxLifetime keeps a lifetime within what a time can be moved by.
const maxLifetime = 100 * 365 * 24 * time.Hour

// ParseLifetime reads a lifetime as a job file writes it: inputs, forever,
// none, or a whole number of hours, days or weeks (12h, 30d, 2w).
func ParseLifetime(s string) (Lifetime, error) {
	switch k := LifetimeKind(s); k {
	case LifetimeInputs, LifetimeForever, LifetimeNone:
		return Lifetime{Kind: k}, nil
	}
	bad := fmt.Errorf("%s is no lifetime; write inputs, forever, none, or a duration such as 12h, 30d or 2w", quote(s))
	if len(s) < 2 {
		return Lifetime{}, bad
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil || n == 0 {
		return Lifetime{}, bad
	}
	for _, u := range lifetimeUnits() {
		if s[len(s)-1] == u.letter {
			if n > uint64(maxLifetime/u.length) {
				return Lifetime{}, fmt.Errorf("%s is longer than a century; write forever", quote(s))
			}
			return Lifetime{Kind: LifetimeFor, For: time.Duration(n) * u.length}, nil
		}
	}
	return Lifetime{}, bad
}

// String is the lifetime as a job file writes it.
func (l Lifetime) String() string {
	if l.Kind != LifetimeFor {
		return string(l.Kind)
	}
	for _, u := range lifetimeUnits() {
		// 14 days are 2w, 30 days stay 30d.
		if l.For%u.length == 0 {
			return strconv.FormatInt(int64(l.For/u.length), 10) + string(u.letter)
		}
	}
	return l.For.String()
}
