package job

import "testing"

func TestNotation(t *testing.T) {
	t.Parallel()
	object := func(props string) string {
		return `{"type":"object","properties":{` + props + `},"required":["a"],"additionalProperties":false}`
	}
	tests := []struct{ name, schema, want string }{
		{"enum", object(`"a":{"type":"string","enum":["x","y"]}`), `{"a": "x"|"y"}`},
		{"plain", object(`"a":{"type":"string"}`), `{"a": string}`},
		{"optional", object(`"a":{"type":"boolean"},"b":{"type":"number"}`), `{"a": true|false, "b"?: number}`},
		{"nullable", object(`"a":{"type":["integer","null"]}`), `{"a": integer|null}`},
		{"any of", object(`"a":{"anyOf":[{"type":"string"},{"type":"null"}]}`), `{"a": string|null}`},
		{"array", object(`"a":{"type":"array","items":{"type":"string"},"maxItems":8}`), `{"a": [string, ...] (at most 8 items)}`},
		{"lengths", object(`"a":{"type":"string","minLength":2,"maxLength":40}`), `{"a": string (2 to 40 characters)}`},
		{"range", object(`"a":{"type":"integer","minimum":0,"maximum":5}`), `{"a": integer (0 to 5)}`},
		{"no least length", object(`"a":{"type":"string","minLength":0}`), `{"a": string}`},
		{"description", object(`"a":{"type":"string","description":"in\n one word"}`), `{"a": string (in one word)}`},
		{"const", object(`"a":{"const":7}`), `{"a": 7}`},
		{"nested", object(`"a":{"type":"object","properties":{"b":{"type":"null"}},"required":["b"]}`), `{"a": {"b": null}}`},
		{"quotes", object(`"a":{"enum":["say \"x\""]}`), `{"a": "say \"x\""}`},

		// What it cannot say is shown as a schema.
		{"pattern", object(`"a":{"type":"string","pattern":"^x$"}`), ""},
		{"reference", object(`"a":{"$ref":"#/$defs/b"}`), ""},
		{"open object", `{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":{"type":"string"}}`, ""},
		{"anything", object(`"a":true`), ""},
		{"required but not described", `{"type":"object","properties":{"a":{"type":"string"}},"required":["a","b"]}`, ""},
		{"array of anything", object(`"a":{"type":"array"}`), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root, err := parseTree([]byte(tt.schema))
			if err != nil {
				t.Fatal(err)
			}
			if got := notation(root); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
