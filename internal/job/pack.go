package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"millrace/internal/llm"
	"millrace/internal/record"
)

// PackItem is one of the records that share a request.
type PackItem struct {
	ID     string // short, distinct within the request, no data of the record
	Record record.Record
}

// RenderPack makes the messages that ask about several records at once, and
// the schema of the reply: an object with one item for each record, told apart
// by their ids. SplitPack takes the reply apart.
func (j *Job) RenderPack(items []PackItem) ([]llm.Message, json.RawMessage, error) {
	var b, prompt []byte
	ids := make([]*tree, len(items))
	for i, item := range items {
		var err error
		if prompt, err = j.template.appendTo(prompt[:0], item.Record); err != nil {
			return nil, nil, err
		}
		ids[i] = textTree(item.ID)
		if i > 0 {
			b = append(b, "\n\n"...)
		}
		b = fmt.Appendf(b, "<%s id=%s>\n", recordTag, quoteJSON(nil, item.ID))
		b = appendHarmless(b, recordTag, string(prompt), true)
		b = fmt.Appendf(b, "\n</%s>", recordTag)
	}
	messages := []llm.Message{{Role: llm.System, Content: j.systemPack}, {Role: llm.User, Content: string(b)}}
	return messages, j.packSchema(ids), nil
}

// packSchema is the schema of a packed answer. References within the job's
// schema are moved along.
func (j *Job) packSchema(ids []*tree) json.RawMessage {
	item := j.schema.root.clone()
	item.members = slices.DeleteFunc(item.members, func(m member) bool { return m.name == "$schema" })
	moveRefs(item, "#/properties/items/items")

	id := objectTree(member{"type", textTree("string")}, member{"enum", arrayTree(ids...)})
	props := item.get("properties")
	props.members = slices.Insert(props.members, 0, member{j.packID, id})
	required := item.get("required")
	if required == nil {
		required = arrayTree()
		item.set("required", required)
	}
	required.elems = slices.Insert(required.elems, 0, textTree(j.packID))

	n := numberTree(len(ids))
	items := objectTree(
		member{"type", textTree("array")}, member{"minItems", n}, member{"maxItems", n}, member{"items", item})
	return objectTree(
		member{"type", textTree("object")},
		member{"properties", objectTree(member{"items", items})},
		member{"required", arrayTree(textTree("items"))},
		member{"additionalProperties", &tree{kind: 'f', raw: "false"}},
	).json()
}

// moveRefs rewrites references from the root to one from where the schema now
// stands.
func moveRefs(t *tree, to string) {
	for _, m := range t.members {
		if m.name == "$ref" && (m.value.text == "#" || strings.HasPrefix(m.value.text, "#/")) {
			*m.value = *textTree(to + m.value.text[1:])
			continue
		}
		moveRefs(m.value, to)
	}
	for _, e := range t.elems {
		moveRefs(e, to)
	}
}

// SplitPack takes the reply to a packed request apart. Items are told apart by
// their ids, never by their place; each is checked as Decode checks an answer.
// Of a reply that is cut off or broken, the items before that place are kept.
// Every id is in exactly one of the two maps; an id that occurs twice is
// invalid, unknown ones are passed over.
func (j *Job) SplitPack(text string, ids []string) (answers map[string]json.RawMessage, errs map[string]error) {
	answers = make(map[string]json.RawMessage, len(ids))
	errs = make(map[string]error)
	seen := make(map[string]int, len(ids))
	items, problem := packItems(text)
	for _, item := range items {
		id, ok := item[j.packID].(string)
		if !ok || !slices.Contains(ids, id) {
			continue
		}
		seen[id]++
		delete(item, j.packID)
		answer, err := j.schema.accept(item)
		if err != nil {
			errs[id] = err
			continue
		}
		answers[id] = answer
	}
	if problem == nil {
		problem = invalidf("the reply has no item for this record")
	}
	for id, n := range seen {
		if n > 1 {
			delete(answers, id)
			errs[id] = invalidf("the reply has %d items for this record", n)
		}
	}
	for _, id := range ids {
		if seen[id] == 0 {
			errs[id] = problem
		}
	}
	return answers, errs
}

// packItems returns the items of a packed reply that can be read, and what
// ended them early if something did.
func packItems(text string) ([]map[string]any, error) {
	text = strings.TrimSpace(text)
	for {
		rest, ok := afterThinking(text)
		if !ok {
			break
		}
		text = rest
	}
	start := packStart(text)
	if start < 0 {
		return nil, invalidf("the reply holds no JSON object")
	}
	d := jsontext.NewDecoder(strings.NewReader(text[start:]))
	if err := enterItems(d); err != nil {
		if p, ok := errors.AsType[*InvalidError](err); ok {
			return nil, p
		}
		return nil, syntaxProblem(err)
	}
	var items []map[string]any
	for d.PeekKind() != ']' {
		v, err := readAny(d)
		if err != nil {
			return items, syntaxProblem(err)
		}
		if item, ok := v.(map[string]any); ok {
			items = append(items, item)
		}
	}
	return items, nil
}

// packStart is where the object or the bare list of a packed reply begins.
func packStart(text string) int {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '{' && looksLikeObject(text[i:]):
			return i
		case text[i] == '[':
			if rest := strings.TrimLeft(text[i+1:], " \t\r\n"); strings.HasPrefix(rest, "{") && looksLikeObject(rest) {
				return i
			}
		}
	}
	return -1
}

// enterItems reads up to the first item.
func enterItems(d *jsontext.Decoder) error {
	tok, err := d.ReadToken()
	if err != nil || tok.Kind() == '[' {
		return err
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		if name.String() != "items" {
			if err := d.SkipValue(); err != nil {
				return err
			}
			continue
		}
		tok, err := d.ReadToken()
		if err == nil && tok.Kind() != '[' {
			return invalidf("/items: must be an array")
		}
		return err
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	return invalidf("property \"items\" is missing")
}
