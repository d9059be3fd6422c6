// Command records writes product reviews as CSV (id, product, review), as many
// as wanted, the same for the same seed:
//
//	go run ./bench/records -n 1000000 -dup 0.3 -seed 1 > reviews.csv
//
// With -dup, that share of the records repeats the product and review of an
// earlier one under a new id; all others are different from each other.
package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "records:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("records", flag.ContinueOnError)
	flags.SetOutput(stderr)
	n := flags.Int("n", 1000, "number of records")
	dup := flags.Float64("dup", 0, "share of records that repeat an earlier one, 0 to 1")
	seed := flags.Uint64("seed", 1, "same seed, same records")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n < 0 || *n > maxRecords || !(*dup >= 0 && *dup <= 1) || flags.NArg() > 0 {
		return fmt.Errorf("needs -n from 0 to %d, -dup from 0 to 1, and no further arguments", maxRecords)
	}
	return write(stdout, *n, *dup, *seed)
}

func write(out io.Writer, n int, dup float64, seed uint64) error {
	b := bufio.NewWriterSize(out, 1<<20)
	w := csv.NewWriter(b)
	if err := w.Write([]string{"id", "product", "review"}); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(seed, 0))
	unique := uint64(0)
	repeats := min(int(math.Round(float64(n)*dup)), n-1) // still to come; the first cannot be one
	for id := range n {
		var which uint64
		if unique > 0 && random.IntN(n-id) < repeats { // exactly that many, anywhere
			which = random.Uint64N(unique)
			repeats--
		} else {
			which = unique
			unique++
		}
		product, review := text(which, seed)
		if err := w.Write([]string{strconv.Itoa(id + 1), product, review}); err != nil {
			return err
		}
	}
	w.Flush()
	return errors.Join(w.Error(), b.Flush())
}

// text is the review of the given number. Different numbers (below total)
// have different texts: a number is written in a number system whose digits
// are choices of words. Multiplying by a prime first spreads neighbours, and
// the seed shifts them.
func text(number, seed uint64) (product, review string) {
	const prime = 2654435761                      // Knuth's, prime to total
	x := (number*prime + seed*7919%total) % total // no overflow: maxRecords is below 2^32
	pick := func(from []string) string {
		d := x % uint64(len(from))
		x /= uint64(len(from))
		return from[d]
	}
	product = pick(products)
	review = pick(openings)
	days := 2 + x%maxDays
	x /= maxDays
	review += fmt.Sprintf(" after %d days of use. ", days)
	review += pick(aspects) + " " + pick(verdicts) + ", " + pick(links) + " "
	review += pick(others) + " " + pick(verdicts) + ". " + pick(closings)
	return product, review
}

const (
	maxDays    = 300
	maxRecords = 1_000_000_000
)

// total is how many different texts there are.
var total = uint64(maxDays * len(products) * len(openings) * len(aspects) * len(verdicts) * len(links) *
	len(others) * len(verdicts) * len(closings))

var (
	products = []string{
		"kettle", "desk lamp", "bicycle pump", "running shoes", "wireless headphones", "office chair", "coffee grinder",
		"rain jacket", "phone case", "air fryer", "backpack", "water bottle", "mechanical keyboard", "yoga mat",
		"electric toothbrush", "tent for two",
	}
	openings = []string{
		"I am writing this", "My second review,", "Here is what I think", "An update", "Honest opinion", "Still undecided",
		"I bought it for my sister and can report", "We use it every day and this is where we stand",
	}
	aspects = []string{
		"The quality", "The finish", "The handle", "The size", "The colour", "The packaging", "The manual", "The price",
		"The battery", "The noise level",
	}
	others = []string{
		"the delivery", "customer service", "the way it is made", "the look of it", "the smell", "the warranty",
		"the weight", "cleaning it",
	}
	verdicts = []string{
		"is better than I hoped", "is exactly as described", "could not be worse", "is a disappointment",
		"is fine for the money", "surprised me in a good way", "got on my nerves from the first day",
		"is nothing special", "makes me smile every time", "fell short of the photos", "is what I would call solid",
	}
	links    = []string{"and", "but", "while", "although"}
	closings = []string{
		"I would buy it again.", "I sent it back.", "Three stars from me.", "My neighbour has ordered one too.",
		"Would not recommend it to a friend.", "Let us see how long it lasts.", "It is a keeper.", "Never again!",
		"Support answered within a day, which helped.", "You get what you pay for.",
	}
)
