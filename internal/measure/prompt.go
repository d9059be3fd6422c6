package measure

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/fnv"
	mrand "math/rand/v2"
	"strings"
)

// newRun is a name for a run.
func newRun() string { return strings.ToLower(rand.Text()[:10]) }

// charsPerToken is about what English text has in the vocabularies of today's
// models.
const charsPerToken = 4

// What is asked about the text. The wish for much keeps answers from ending
// before max_tokens does.
const (
	askReport = "Write a detailed report about these notes. Go through them one after the other, explain what each says and what may be behind it, and do not stop early."
	askList   = "List everything that these notes mention, one entry after the other, at least twelve. Give for each the place, the year, and two sentences about it."
	askWord   = "What do these notes have in common?"
)

// listSchema is a schema of the kind that jobs have: objects in a list, with
// text, a number and a choice. It cannot be fulfilled in fewer tokens than the
// answers that are asked for.
var listSchema = json.RawMessage(`{"type":"object","properties":{"entries":{"type":"array","minItems":12,"items":{"type":"object",` +
	`"properties":{"place":{"type":"string"},"year":{"type":"integer"},"kind":{"type":"string","enum":["record","visit","repair","loan"]},` +
	`"remark":{"type":"string"}},"required":["place","year","kind","remark"]}}},"required":["entries"]}`)

// dice are random numbers that are the same for the same run and number.
func dice(run string, number int) *mrand.Rand {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s/%d", run, number)
	return mrand.New(mrand.NewPCG(h.Sum64(), uint64(number)))
}

// prompt is a text of about so many tokens, with the question ask at its end.
// Its first words are unlike those of any other number or run, so that nothing
// of it is in a prefix cache, and the sentences after them come in another
// order, for caches that look further.
func prompt(run string, number, tokens int, ask string) string {
	d := dice(run, number)
	return text(d, nonce(d), tokens*charsPerToken-len(ask)-2) + "\n\n" + ask
}

// twice is two prompts of about so many tokens that begin alike; the last
// tenth is different, as with a job that asks the same about other records.
func twice(run string, number, tokens int) (first, again string) {
	d := dice(run, number)
	common := text(d, nonce(d), tokens*charsPerToken*9/10)
	rest := tokens*charsPerToken/10 - len(askWord) - 2
	end := func() string { return "\n" + text(d, nonce(d), rest) + "\n\n" + askWord }
	return common + end(), common + end()
}

func nonce(d *mrand.Rand) string { return fmt.Sprintf("%08x %08x.", d.Uint32(), d.Uint32()) }

// text is begin and sentences after it, of about that many bytes in all.
func text(d *mrand.Rand, begin string, length int) string {
	var b strings.Builder
	b.WriteString(begin)
	for b.Len() < length {
		s := sentence(d)
		if b.Len()+len(s)/2 > length {
			break
		}
		b.WriteByte(' ')
		b.WriteString(s)
	}
	return b.String()
}

func sentence(d *mrand.Rand) string {
	pick := func(list []string) string { return list[d.IntN(len(list))] }
	return strings.NewReplacer(
		"PLACE", pick(places), "THING", pick(things), "OTHER", pick(things), "WHO", pick(people),
		"YEAR", fmt.Sprint(1870+d.IntN(130)), "COUNT", fmt.Sprint(2+d.IntN(97)),
	).Replace(pick(sentences))
}

var (
	places = []string{"the harbour office", "the old mill", "the north library", "the river station", "the town archive", "the school on the hill", "the glass house", "the upper valley", "the market hall", "the lighthouse"}
	things = []string{"letters", "clocks", "maps", "seed boxes", "bells", "ledgers", "barometers", "chairs", "lamps", "weather notes", "boats", "drawings"}
	people = []string{"the keeper", "a visiting teacher", "the youngest clerk", "two surveyors", "the gardener", "a ship's carpenter", "the archivist", "an engineer"}

	sentences = []string{
		"In YEAR WHO counted COUNT THING in PLACE and wrote the number down twice.",
		"The THING that came to PLACE in YEAR were older than anybody had thought.",
		"WHO asked for COUNT THING, but PLACE could lend only a part of them.",
		"After the flood of YEAR the THING were dried on the floor of PLACE.",
		"A list from YEAR gives COUNT THING and, on the back, nearly as many OTHER.",
		"Nobody in PLACE remembers why the THING were moved there in YEAR.",
		"WHO repaired the OTHER first, since the THING could wait until spring.",
		"Between the THING and the OTHER there stood a table with COUNT drawers.",
		"In PLACE the THING are still used every day, which WHO found remarkable.",
		"The price of THING rose in YEAR, so that PLACE bought OTHER in their place.",
		"WHO walked from PLACE with COUNT OTHER in a cart and came back without them.",
		"A photograph of YEAR shows the THING in front of PLACE, in bright light.",
	}
)
