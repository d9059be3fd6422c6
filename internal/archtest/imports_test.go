// Package archtest holds the rules that keep the tree readable, as tests:
// which package may import which, who may use a library, one doc comment for
// each package. There is no code in it.
//
// Nouns do not know their adapters; adapters do not know each other; only
// cmd/millrace knows everything.
package archtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "millrace/"

// rule says what a package may import of ours.
type rule struct {
	may []string // paths without the module; "*" for all
	why string   // why no more than this
	// planned marks a package that ARCHITECTURE names and nobody has written
	// yet. Take the mark away when it is there.
	planned bool
}

const (
	leaf    = "a noun that others build on: it stays a leaf, so that it can be read and tested alone"
	adapter = "an adapter knows what it adapts and its noun, never another adapter"
	career  = "a built-in job is a job like a user's own: it sees neither the runner nor the other jobs"
	suite   = "an exam for implementations; only tests import it"
)

// table is every package there is, and its rule.
var table = map[string]rule{
	"internal/llm":      {why: leaf},
	"internal/gguf":     {why: leaf},
	"internal/record":   {why: leaf},
	"internal/roofline": {why: leaf},
	"internal/machine":  {why: leaf},
	"internal/config":   {why: "each constructor takes its own options, so config stays a leaf that only cmd/millrace reads"},

	"internal/llm/ollama": {may: []string{"internal/llm", "internal/gguf"}, why: adapter},
	"internal/llm/openai": {may: []string{"internal/llm", "internal/gguf"}, why: adapter},
	"internal/llm/sim":    {may: []string{"internal/llm", "internal/roofline"}, why: "the simulator stands in for a server on the other side of the protocol: sharing an adapter's code would let both be wrong alike"},
	"internal/engine":     {may: []string{"internal/gguf", "internal/machine"}, why: "the engine serves; what is asked of it is llm's affair", planned: true},
	"internal/llm/engine": {may: []string{"internal/llm", "internal/engine"}, why: adapter, planned: true},

	"internal/measure": {may: []string{"internal/llm", "internal/machine"}, why: "measuring does not judge; doctor does"},
	"internal/doctor":  {may: []string{"internal/llm", "internal/machine", "internal/measure", "internal/roofline"}, why: "the doctor reads and changes nothing", planned: true},
	"internal/tune":    {may: []string{"internal/doctor", "internal/llm", "internal/machine", "internal/measure", "internal/roofline"}, why: "tuning acts on findings; it does not run jobs", planned: true},

	"internal/job":              {may: []string{"internal/llm", "internal/record"}, why: "a job is a definition; how it is run is batch's affair"},
	"internal/career/clean":     {may: []string{"internal/job", "internal/llm", "internal/record"}, why: career, planned: true},
	"internal/career/demand":    {may: []string{"internal/job", "internal/llm", "internal/record"}, why: career, planned: true},
	"internal/career/gap":       {may: []string{"internal/job", "internal/llm", "internal/record"}, why: career, planned: true},
	"internal/career/recommend": {may: []string{"internal/job", "internal/llm", "internal/record"}, why: career, planned: true},
	"internal/career/voice":     {may: []string{"internal/job", "internal/llm", "internal/record"}, why: career, planned: true},
	"internal/batch":            {may: []string{"internal/job", "internal/llm", "internal/record"}, why: "the runner declares what it needs of a store and is handed one; it never sees a particular store or job"},
	"internal/sqlite":           {may: []string{"internal/batch", "internal/measure"}, why: adapter},
	"internal/postgres":         {may: []string{"internal/batch", "internal/measure"}, why: adapter, planned: true},

	"internal/web": {may: []string{"internal/batch", "internal/doctor", "internal/job", "internal/llm", "internal/machine", "internal/measure", "internal/tune"}, why: "the dashboard shows; it knows no store and no server by name", planned: true},

	"internal/llm/llmtest":   {may: []string{"internal/llm"}, why: suite},
	"internal/storetest":     {may: []string{"internal/batch", "internal/measure"}, why: suite},
	"internal/gguf/gguftest": {may: []string{"internal/gguf"}, why: "it writes what gguf reads"},
	"internal/archtest":      {why: "tests only"},

	"cmd/millrace":   {may: []string{"*"}, why: "the place where everything is put together"},
	"e2e":            {may: []string{"*"}, why: "tests of the whole"},
	"e2e/ollamatest": {may: []string{"internal/gguf", "internal/gguf/gguftest"}, why: "it starts a server; what is asked of that is the tests' affair"},
	"e2e/serve":      {may: []string{"e2e/ollamatest", "internal/gguf", "internal/gguf/gguftest"}, why: "a command around ollamatest"},
	"examples":       {why: "files, embedded for the demo"},
	"bench/compare":  {may: []string{"e2e/ollamatest"}, why: "it drives the built binary, as a user does"},
	"bench/kill":     {may: []string{"*"}, why: "a measurement of the whole"},
	"bench/pace":     {may: []string{"*"}, why: "a measurement of the whole"},
	"bench/speed":    {may: []string{"*"}, why: "a measurement of the whole"},
	"bench/records":  {why: "a generator of input, independent of how it is read"},
}

// only are libraries that one place may use.
var only = []struct {
	library string
	by      []string
	why     string
	planned bool
}{
	{"github.com/alecthomas/kong", []string{"cmd/millrace"}, "how a command line is read is cmd's affair; everything else takes values", false},
	{"modernc.org/sqlite", []string{"internal/sqlite"}, "SQL lives in the stores", false},
	{"github.com/vbauerster/mpb/v8", []string{"cmd/millrace"}, "what a person sees is cmd's affair", false},
	{"github.com/hybridgroup/yzma", []string{"internal/engine"}, "llama.cpp's library is a detail of the engine", true},
	{"github.com/riverqueue/river", []string{"internal/sqlite", "internal/postgres"}, "the queue is a detail of the stores", true},
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	Dir, ImportPath, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports                            []string
}

// path is the package without the module, "cmd/millrace".
func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, module) }

// isTestKit reports whether a package is there for tests: gguftest, llmtest.
func isTestKit(path string) bool { return strings.HasSuffix(path, "test") }

func list(t *testing.T) []pkg {
	t.Helper()
	root := filepath.Join("..", "..")
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-tags", "e2e", "-json", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list found no package")
	}
	return pkgs
}

// TestImports holds every package to the table.
func TestImports(t *testing.T) {
	t.Parallel()
	for _, problem := range checkImports(list(t), table) {
		t.Error(problem)
	}
}

// checkImports says what breaks the rules.
func checkImports(pkgs []pkg, table map[string]rule) (problems []string) {
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	exists := map[string]bool{}
	for _, p := range pkgs {
		path := p.path()
		exists[path] = true
		r, ok := table[path]
		if !ok {
			say("%s is not in the table of internal/archtest: say there what it may import, and why", path)
			continue
		}
		for _, imp := range p.Imports {
			of, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if !slices.Contains(r.may, of) && !slices.Contains(r.may, "*") {
				say("%s imports %s and may not: %s (it may import: %s)", path, of, r.why, cmp.Or(strings.Join(r.may, ", "), "none of ours"))
			}
			if isTestKit(of) && !isTestKit(path) && !strings.HasPrefix(path, "e2e") && !strings.HasPrefix(path, "bench/") {
				say("%s imports %s, which is for tests only", path, of)
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(table)) {
		switch r := table[path]; {
		case exists[path] && r.planned:
			say("%s is there now: take away its planned mark in the table", path)
		case !exists[path] && !r.planned:
			say("%s is in the table and does not exist: remove it, or mark it planned", path)
		}
		for _, may := range table[path].may {
			if _, ok := table[may]; !ok && may != "*" {
				say("%s may import %s, which the table does not know", path, may)
			}
		}
		if table[path].why == "" {
			say("%s has no reason in the table", path)
		}
	}
	return problems
}

// TestLibraries keeps a library to its place.
func TestLibraries(t *testing.T) {
	t.Parallel()
	pkgs := list(t)
	for _, rule := range only {
		used := false
		for _, p := range pkgs {
			for _, imp := range p.Imports {
				if imp != rule.library && !strings.HasPrefix(imp, rule.library+"/") {
					continue
				}
				used = true
				if !slices.Contains(rule.by, p.path()) {
					t.Errorf("%s imports %s, which is for %s: %s", p.path(), imp, strings.Join(rule.by, " and "), rule.why)
				}
			}
		}
		if !used && !rule.planned {
			t.Errorf("nobody imports %s any more: remove its rule, or mark it planned", rule.library)
		}
	}
}

// TestNoTestingInTheBinary: package testing registers flags and is no part of
// a product.
func TestNoTestingInTheBinary(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if isTestKit(p.path()) {
			continue
		}
		if slices.Contains(p.Imports, "testing") {
			t.Errorf("%s imports testing outside of a test; a kit for tests is a package whose name ends in test", p.path())
		}
	}
}

// TestPackageComments: one doc comment for each package, no more, no less.
func TestPackageComments(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		files := p.GoFiles
		if len(files) == 0 { // a package of tests
			files = append(slices.Clone(p.TestGoFiles), p.XTestGoFiles...)
		}
		var with []string
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Doc == nil {
				continue
			}
			with = append(with, name)
			prefix := "Package " + p.Name + " "
			if p.Name == "main" {
				prefix = "Command " + filepath.Base(p.Dir) + " "
			}
			if !strings.HasPrefix(f.Doc.Text(), prefix) {
				t.Errorf("%s/%s: its comment has to begin with %q", p.path(), name, prefix)
			}
		}
		switch len(with) {
		case 0:
			t.Errorf("%s has no package comment", p.path())
		case 1:
		default:
			t.Errorf("%s has %d package comments, in %s: keep one", p.path(), len(with), strings.Join(with, ", "))
		}
	}
}

// TestTheRulesBite: a table that lets everything through would pass too.
func TestTheRulesBite(t *testing.T) {
	t.Parallel()
	table := map[string]rule{
		"internal/a":     {why: "a leaf"},
		"internal/b":     {may: []string{"internal/a"}, why: "b"},
		"internal/soon":  {why: "later", planned: true},
		"internal/gone":  {why: "was there"},
		"internal/done":  {why: "planned once", planned: true},
		"internal/odd":   {may: []string{"internal/nowhere"}},
		"internal/kit":   {may: []string{"*"}, why: "all"},
		"internal/xtest": {may: []string{"internal/a"}, why: "a kit"},
	}
	pkgs := []pkg{
		{ImportPath: module + "internal/a", Imports: []string{"fmt", module + "internal/b"}},
		{ImportPath: module + "internal/b", Imports: []string{module + "internal/a"}},
		{ImportPath: module + "internal/done"},
		{ImportPath: module + "internal/odd"},
		{ImportPath: module + "internal/kit", Imports: []string{module + "internal/xtest"}},
		{ImportPath: module + "internal/xtest", Imports: []string{module + "internal/a"}},
		{ImportPath: module + "internal/new"},
	}
	got := checkImports(pkgs, table)
	want := []string{
		"internal/a imports internal/b and may not: a leaf (it may import: none of ours)",
		"internal/kit imports internal/xtest, which is for tests only",
		"internal/new is not in the table",
		"internal/done is there now",
		"internal/gone is in the table and does not exist",
		"internal/odd may import internal/nowhere, which the table does not know",
		"internal/odd has no reason",
	}
	if len(got) != len(want) {
		t.Fatalf("got %d problems, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
}
