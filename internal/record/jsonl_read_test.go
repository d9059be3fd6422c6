package record

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJSONL(t *testing.T) {
	for name, tt := range map[string]struct {
		in   string
		opts ReadOptions
		want []item
	}{
		"plain": {
			in: `{"id": 1, "text": "caf\u00e9 \"x\"", "n": 1.50, "o": {"b": [1, 2], "a": null}}` + "\n" + `{"text":"y","id":2}`,
			want: []item{
				{1, 1, cells(`id=1`, `text="caf\u00e9 \"x\""`, `n=1.50`, `o={"b": [1, 2], "a": null}`), "", ""},
				{2, 2, cells(`text="y"`, `id=2`), "", ""},
			},
		},
		"escaped name":   {in: `{"a\"\u0062": true}`, want: []item{{1, 1, cells(`a"b=true`), "", ""}}},
		"empty object":   {in: "{}\n", want: []item{{1, 1, nil, "", ""}}},
		"white space":    {in: " { \"a\" :\t1 } \r\n", want: []item{{1, 1, cells(`a=1`), "", ""}}},
		"blank lines":    {in: "\n{\"a\":1}\n \t\r\n\n{\"a\":2}\n", want: []item{{1, 2, cells(`a=1`), "", ""}, {2, 5, cells(`a=2`), "", ""}}},
		"BOM":            {in: "\xef\xbb\xbf{\"a\":1}\r\n", want: []item{{1, 1, cells(`a=1`), "", ""}}},
		"old mac":        {in: "{\"a\":1}\r{\"a\":2}\r", want: []item{{1, 1, cells(`a=1`), "", ""}, {2, 2, cells(`a=2`), "", ""}}},
		"a CR within":    {in: "{\"a\":\r1}\n{\"a\":2}\n", want: []item{{1, 1, cells(`a=1`), "", ""}, {2, 2, cells(`a=2`), "", ""}}},
		"varying fields": {in: "{\"a\":1,\"b\":2}\n{\"b\":3}\n{\"c\":4,\"b\":5,\"a\":6}\n", want: []item{{1, 1, cells("a=1", "b=2"), "", ""}, {2, 2, cells("b=3"), "", ""}, {3, 3, cells("c=4", "b=5", "a=6"), "", ""}}},
		"large numbers":  {in: `{"a":123456789012345678901234567890,"b":1e400,"c":-0}`, want: []item{{1, 1, cells("a=123456789012345678901234567890", "b=1e400", "c=-0"), "", ""}}},
		"bad lines": {
			in: "{\"a\":1}\n[1]\n\"x\"\n7\nid,name\n{\"a\":1,\"a\":2}\n{\"o\":{\"x\":1,\"x\":2}}\n{\"a\":1\n{\"a\":1} {\"a\":2}\n{\"a\":tru}\n{\"a\":2}\n",
			want: []item{
				{1, 1, cells("a=1"), "", ""},
				{2, 2, nil, "is a JSON array, not an object: if the input is one array of objects, `jq -c '.[]'` makes JSONL of it", "[1]"},
				{3, 3, nil, `is a JSON value but not an object: each line must be one, such as {"id": 1}`, `"x"`},
				{4, 4, nil, `is a JSON value but not an object: each line must be one, such as {"id": 1}`, `7`},
				{5, 5, nil, `is not JSON: each line must be an object, such as {"id": 1}`, `id,name`},
				{6, 6, nil, `field "a" appears twice: give each field a name of its own`, `{"a":1,"a":2}`},
				{7, 7, nil, `field /o/x appears twice: give each field a name of its own`, `{"o":{"x":1,"x":2}}`},
				{8, 8, nil, `breaks off before its JSON object ends: an object must stand on one line`, `{"a":1`},
				{9, 9, nil, `has more behind its JSON object: put each object on a line of its own`, `{"a":1} {"a":2}`},
				{10, 10, nil, `field "a" is not valid JSON (byte 9 of the line): invalid character '}' in literal true (expecting 'e')`, `{"a":tru}`},
				{11, 11, cells("a=2"), "", ""},
			},
		},
		"invalid UTF-8": {
			in: "{\"a\":1,\"b\":\"caf\xe9\"}\n{\"caf\xe9\":1}\n",
			want: []item{
				{1, 1, nil, `field "b" is not valid UTF-8: if the input comes from Excel or an older Windows program, try --encoding windows-1252`, "{\"a\":1,\"b\":\"caf\uFFFD\"}"},
				{2, 2, nil, `the line is not valid UTF-8: if the input comes from Excel or an older Windows program, try --encoding windows-1252`, "{\"caf\uFFFD\":1}"},
			},
		},
		"windows-1252": {in: "{\"a\":\"caf\xe9\"}\n", opts: ReadOptions{Encoding: "windows-1252"}, want: []item{{1, 1, cells(`a="café"`), "", ""}}},
		"wrong encoding": {
			in: "{\"a\":\"\xff\"}\n", opts: ReadOptions{Encoding: "shift_jis"},
			want: []item{{1, 1, nil, "the line holds bytes that are not shift_jis: is that the right --encoding?", "{\"a\":\"\uFFFD\"}"}},
		},
		"too long": {
			in: `{"a":"` + strings.Repeat("x", 3<<20) + "\"}\n{\"a\":2}\n", opts: ReadOptions{MaxRecord: 1 << 20},
			want: []item{
				{1, 1, nil, "the line is longer than 1 MB: is this another format?", `{"a":"` + strings.Repeat("x", rawMax-6)},
				{2, 2, cells("a=2"), "", ""},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, readString(t, tt.in, JSONL, tt.opts)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestJSONLHugeLine(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 10<<20/16)
	got := records(t, reader(t, []byte(`{"id":1,"text":"`+big+"\"}\n{\"id\":2}\n"), JSONL))
	if len(got) != 2 || got[0].Fields[1].Value.String() != big {
		t.Errorf("%d records", len(got))
	}
}

func TestJSONLOnlyBlankLines(t *testing.T) {
	r := reader(t, []byte("\n \n"), JSONL)
	if _, err := readAll(r); err == nil || err.Error() != "the input is empty: it holds only blank lines" {
		t.Error(err)
	}
}

func TestValue(t *testing.T) {
	for _, tt := range []struct {
		v            Value
		json, string string
	}{
		{Value{}, `null`, ``},
		{JSON(`null`), `null`, ``},
		{Text(``), `""`, ``},
		{Text("a\"\n"), `"a\"\n"`, "a\"\n"},
		{Text(`5`), `"5"`, `5`},
		{JSON(`5`), `5`, `5`},
		{JSON(`"plain"`), `"plain"`, `plain`},
		{JSON(`"caf\u00e9"`), `"caf\u00e9"`, `café`},
		{JSON(`{"a": [1, 2]}`), `{"a": [1, 2]}`, `{"a":[1,2]}`},
		{JSON(`[]`), `[]`, `[]`},
		{JSON(`"`), `"`, ``}, // not valid, but no reason to fail
		{Text("\xff"), "\"\uFFFD\"", "\xff"},
	} {
		if got := string(tt.v.JSON()); got != tt.json {
			t.Errorf("%#v as JSON: %s, want %s", tt.v, got, tt.json)
		}
		if got := tt.v.String(); got != tt.string {
			t.Errorf("%#v as a cell: %s, want %s", tt.v, got, tt.string)
		}
	}
}
