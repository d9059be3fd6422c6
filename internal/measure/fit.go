package measure

import (
	"fmt"
	"math"
	"time"
)

// speed is what is known so far of how fast the server is with one request,
// so that lengths can be fitted into the time there is.
type speed struct {
	token  time.Duration // between two tokens of the answer
	before time.Duration // until the first token, loading left out
	prompt int           // tokens of the prompt that took that long
	after  time.Duration // from the last token to the end
}

// saw learns from a trial with one request at a time, of a prompt of about so
// many tokens.
func (s *speed) saw(t Trial, promptTokens int) {
	if t.ErrorKind != "" || t.E2EMs == nil {
		return
	}
	span := func(p *float64) time.Duration { return time.Duration(or(p, 0) * float64(time.Millisecond)) }
	n, _ := t.tokens()
	total := span(t.E2EMs) - span(t.ServerLoadMs)
	var token time.Duration
	switch {
	case t.TimePerOutputTokenMs != nil:
		token = span(t.TimePerOutputTokenMs)
	case t.ServerDecodeMs != nil && n > 0:
		token = span(t.ServerDecodeMs) / time.Duration(n)
	case n > 0:
		token = total / time.Duration(n)
	}
	if token > 0 {
		if s.token > 0 {
			token = (s.token + token) / 2
		}
		s.token = token
	}
	before := total - time.Duration(max(n-1, 0))*s.token
	if t.TTFTMs != nil {
		before = span(t.TTFTMs) - span(t.ServerLoadMs)
	}
	s.before, s.prompt = max(before, 0), max(promptTokens, 1)
	s.after = max(total-s.before-time.Duration(max(n-1, 0))*s.token, 0)
	if t.Cut != "" {
		s.after = 0
	}
}

// known reports whether anything was seen.
func (s *speed) known() bool { return s.prompt > 0 }

// request is how long a request will take. A longer prompt than was seen is
// taken to need time in proportion, which is the slow end: reading a short one
// on a GPU costs hardly less.
func (s *speed) request(promptTokens, answerTokens int) time.Duration {
	return s.reading(promptTokens) + time.Duration(max(answerTokens-1, 0))*s.token + s.after
}

func (s *speed) reading(promptTokens int) time.Duration {
	return time.Duration(float64(s.before) * max(1, float64(promptTokens)/float64(max(s.prompt, 1))))
}

func (s *speed) of(sc Scenario) time.Duration { return s.request(sc.PromptTokens, sc.AnswerTokens) }

// fitted is a scenario with lengths that fit.
type fitted struct {
	Scenario
	once bool // there is no time to repeat it
}

// omission is what was left out, and why.
type omission struct {
	Scenario
	why string
}

// leastPrompt is how far a prompt is shortened.
const leastPrompt = 0.4

// fit shortens scenarios so that each can be asked so many times within the
// share of time; 0 is no limit. First answers are shortened down to what the
// scenario allows, then prompts. The longest that still do not fit are asked
// once, or left out; one scenario always stays.
func fit(all []Scenario, s speed, share time.Duration, times int) (kept []fitted, out []omission) {
	if share <= 0 || len(all) == 0 {
		for _, sc := range all {
			kept = append(kept, fitted{Scenario: sc})
		}
		return kept, nil
	}
	list := all
	for {
		answers, prompts := 1.0, 1.0
		for s.all(list, answers, prompts, times) > share && (answers > 0 || prompts > leastPrompt) {
			if answers > 0 {
				answers = max(answers-1./16, 0)
			} else {
				prompts = max(prompts-1./16, leastPrompt)
			}
		}
		if cost := s.all(list, answers, prompts, times); cost <= share || len(list) == 1 {
			for _, sc := range list {
				kept = append(kept, fitted{Scenario: shorten(sc, answers, prompts)})
			}
			share -= cost
			break
		}
		list = list[:len(list)-1]
	}
	for _, sc := range all[len(list):] {
		least := shorten(sc, 0, 1)
		cost := s.of(least)
		if cost <= share {
			kept = append(kept, fitted{least, true})
			share -= cost
			continue
		}
		out = append(out, omission{sc, fmt.Sprintf("an answer of %d tokens takes about %.0f s here; that was too long for this run", least.AnswerTokens, cost.Seconds())})
	}
	return kept, out
}

func (s *speed) all(list []Scenario, answers, prompts float64, times int) time.Duration {
	var sum time.Duration
	for _, sc := range list {
		sum += s.of(shorten(sc, answers, prompts)) * time.Duration(times)
	}
	return sum
}

// shorten gives a scenario a part of its lengths: answers 0 is its least, 1 is
// what it wants.
func shorten(sc Scenario, answers, prompts float64) Scenario {
	if sc.Least > 0 && sc.Least < sc.AnswerTokens {
		sc.AnswerTokens = sc.Least + int(math.Round(answers*float64(sc.AnswerTokens-sc.Least)))
	}
	sc.PromptTokens = max(1, int(float64(sc.PromptTokens)*prompts))
	return sc
}

// Times that lengths are fitted to.
const (
	severalTime = 1000 * time.Millisecond // an answer when several are asked for at once
	prefixTime  = 1500 * time.Millisecond // reading the long prompt
)

// fitSeveral is the scenario for several requests at once: an answer of about
// severalTime, so that a round is short on every machine.
func fitSeveral(sc Scenario, s speed) Scenario {
	if s.token > 0 {
		sc.AnswerTokens = min(max(int(severalTime/s.token), sc.Least), sc.AnswerTokens)
	}
	return sc
}

// The long prompt of the prefix phase fits the least context that servers of
// today give, 2048 tokens of which some are the template's.
const longPrompt = 800

// fitPrefix is the length of the long prompt.
func fitPrefix(s speed) int {
	if s.before <= 0 {
		return longPrompt
	}
	return min(max(int(float64(s.prompt)*float64(prefixTime)/float64(s.before)), 120), longPrompt)
}

// weights of the phases when time is shared out.
const (
	weightSingle  = 5.5
	weightPairs   = 1.5
	weightSeveral = 2.2
	weightPrefix  = 0.8
)

// shareOf is the part of what is left that a phase may use: its weight by that
// of all that are still to come, itself included. What a phase leaves over
// goes to the next.
func shareOf(left time.Duration, weight, all float64) time.Duration {
	if left <= 0 || all <= 0 {
		return 0
	}
	return time.Duration(float64(left) * weight / all)
}
