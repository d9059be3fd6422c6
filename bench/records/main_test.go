package main

import (
	"bytes"
	"encoding/csv"
	"testing"
)

func rows(t *testing.T, n int, dup float64, seed uint64) [][]string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, n, dup, seed); err != nil {
		t.Fatal(err)
	}
	all, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != n+1 {
		t.Fatalf("%d rows, want %d", len(all)-1, n)
	}
	return all[1:]
}

func TestUniqueAndRepeated(t *testing.T) {
	t.Parallel()
	const n = 50_000
	for dup, want := range map[float64]int{0: n, 0.3: n * 7 / 10, 1: 1} {
		ids, texts := map[string]bool{}, map[string]bool{}
		for _, r := range rows(t, n, dup, 3) {
			ids[r[0]] = true
			texts[r[1]+"\x00"+r[2]] = true
		}
		if len(ids) != n {
			t.Errorf("dup %v: %d different ids of %d", dup, len(ids), n)
		}
		if len(texts) != want {
			t.Errorf("dup %v: %d different texts, want %d", dup, len(texts), want)
		}
	}
}

func TestSeed(t *testing.T) {
	t.Parallel()
	a, b, c := rows(t, 10, 0, 1), rows(t, 10, 0, 1), rows(t, 10, 0, 2)
	for i := range a {
		if a[i][2] != b[i][2] {
			t.Errorf("row %d differs under the same seed", i)
		}
		if a[i][2] == c[i][2] {
			t.Errorf("row %d is the same under another seed", i)
		}
	}
}

// TestEveryNumberIsItsOwnText checks what write relies on: the prime has no
// divisor in common with total, and all records fit.
func TestEveryNumberIsItsOwnText(t *testing.T) {
	t.Parallel()
	gcd, b := total, uint64(2654435761)
	for b != 0 {
		gcd, b = b, gcd%b
	}
	if gcd != 1 || total < maxRecords {
		t.Errorf("total %d, greatest common divisor %d", total, gcd)
	}
}
