package gguftest

import (
	"fmt"
	"strings"
)

// Token types of tokenizer.ggml.token_type (enum llama_token_type).
const (
	tokenNormal  = 1
	tokenUnknown = 2
	tokenControl = 3
	tokenByte    = 6
)

type token struct {
	text  string
	kind  int32
	score float32
}

// vocabulary is a SentencePiece vocabulary that can spell any text and takes
// about as many tokens for English and for JSON as real ones do: the three
// control tokens, one fallback token for each byte, ASCII, common words, and
// fillers up to n.
//
// The tokeniser joins neighbours as long as the result is a token, best score
// first, so that a word is only found if all its beginnings are tokens too.
func vocabulary(n int) []token {
	v := []token{{"<unk>", tokenUnknown, 0}, {"<s>", tokenControl, 0}, {"</s>", tokenControl, 0}}
	for b := range 256 {
		v = append(v, token{fmt.Sprintf("<0x%02X>", b), tokenByte, 0})
	}
	seen := map[string]bool{}
	piece := func(s string) {
		if !seen[s] {
			seen[s] = true
			v = append(v, token{s, tokenNormal, -float32(len(seen) - 1)})
		}
	}
	const space = "\u2581" // SentencePiece's mark for a space
	piece(space)
	for c := '!'; c < 0x7f; c++ {
		piece(string(c))
	}
	beginnings := func(word string) {
		for i := range word {
			if i > 0 {
				piece(word[:i])
			}
		}
		piece(word)
	}
	for w := range strings.FieldsSeq(fragments) {
		beginnings(w)
	}
	for w := range strings.FieldsSeq(words) {
		beginnings(space + w)
	}
	for i := 0; len(v) < n; i++ {
		piece(fmt.Sprintf("%sw%d", space, i))
	}
	return v
}

// fragments are words as they stand inside JSON and markup, with no space
// before them.
const fragments = `":" "," {" "} "] [" </ /> "type" "object" "string" "boolean" "number" "integer" "array" "enum"
"properties" "required" "additional "items" true false null product review skill name text value record student`

// words are common in English, and in what the tests and benchmarks ask.
const words = `the be to of and a in that have it for not on with he as you do at this but his by from they we say her
she or an will my one all would there their what so up out if about who get which go me when make can like time no just
him know take people into year your good some could them see other than then now look only come its over think also
back after use two how our work first well way even new want because any these give day most us is are was were been
has had did more very much many such own same here where why again once each few both between under while during
before through off down too can't don't bad better best worse worst fine great small large long short high low old
price quality size colour color weight noise level smell finish handle battery manual packaging delivery customer
service warranty support photos cleaning made money opinion update honest second friend neighbour sister bought sent
ordered buy product review reviews item order star stars days weeks every surprised hoped described disappointment
nothing special smile keeper never recommend answer answered question JSON object schema fits fit else between tags
text data instruction record records comes whatever says else name field value number list true false null judge
sentiment mood urgent positive negative mixed neutral student students course courses job jobs skill skills level
experience team project manager engineer software data science analysis design business market sales marketing
finance health education school university degree research learning machine language writing communication
leadership management problem solving time teaching nursing law history music art sport technical tool tools code
programming python java web cloud network security database system systems user users test testing report`
