package config_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/config"
)

var home = map[string]string{"HOME": "/home/ada"}

// with is home and some more variables.
func with(kv ...string) map[string]string {
	env := map[string]string{}
	maps.Copy(env, home)
	for i := 0; i < len(kv); i += 2 {
		env[kv[i]] = kv[i+1]
	}
	return env
}

func TestLoad(t *testing.T) {
	t.Parallel()
	defaults := config.Settings{
		State: "/home/ada/.local/state/millrace", Patience: 5 * time.Minute, Timeout: 10 * time.Minute,
		Color: config.ColorAuto,
	}
	for _, tc := range []struct {
		name string
		from config.Sources
		want func(*config.Settings)
	}{
		{"nothing", config.Sources{Env: home}, func(*config.Settings) {}},
		{"empty file", config.Sources{Env: home, File: []byte("\n# nothing yet\n")}, func(*config.Settings) {}},
		{
			"file",
			config.Sources{Env: home, File: []byte("server: http://box:8080\nmodel: llama3.1:8b\nconcurrency: 8\n" +
				"timeout: 90s\npatience: 0s\nencoding: windows-1252\ncolor: never\napi_key: abc\nstate: /srv/millrace\n")},
			func(s *config.Settings) {
				*s = config.Settings{
					Server: "http://box:8080", Model: "llama3.1:8b", Concurrency: 8, Timeout: 90 * time.Second,
					Encoding: "windows-1252", Color: "never", APIKey: "abc", State: "/srv/millrace",
				}
			},
		},
		{
			"byte order mark and Windows line ends",
			config.Sources{Env: home, File: []byte("\ufeffmodel: a\r\ntimeout: 30s # short\r\n")},
			func(s *config.Settings) { s.Model, s.Timeout = "a", 30*time.Second },
		},
		{
			"quoted",
			config.Sources{Env: home, File: []byte("model: \"07\"\napi_key: 'x:y'\n")},
			func(s *config.Settings) { s.Model, s.APIKey = "07", "x:y" },
		},
		{
			"numbers stay text",
			config.Sources{Env: home, File: []byte("model: 0x10\napi_key: 0123\n")},
			func(s *config.Settings) { s.Model, s.APIKey = "0x10", "0123" },
		},
		{
			"the environment beats the file",
			config.Sources{Env: with("MILLRACE_MODEL", "env", "MILLRACE_API_KEY", "k"), File: []byte("model: file\n")},
			func(s *config.Settings) { s.Model, s.APIKey = "env", "k" },
		},
		{
			"an empty variable is not set",
			config.Sources{Env: with("MILLRACE_MODEL", ""), File: []byte("model: file\n")},
			func(s *config.Settings) { s.Model = "file" },
		},
		{
			"flags beat all",
			config.Sources{
				Env: with("MILLRACE_CONCURRENCY", "4"), File: []byte("concurrency: 2\n"),
				Flags: map[string]string{"concurrency": "auto"},
			},
			func(*config.Settings) {},
		},
		{
			"an empty flag is given", // --model "" undoes the file's
			config.Sources{Env: home, File: []byte("model: file\n"), Flags: map[string]string{"model": ""}},
			func(*config.Settings) {},
		},
		{
			"NO_COLOR",
			config.Sources{Env: with("NO_COLOR", "1")},
			func(s *config.Settings) { s.Color = config.ColorNever },
		},
		{
			"our own variable beats NO_COLOR",
			config.Sources{Env: with("NO_COLOR", "1", "MILLRACE_COLOR", "always")},
			func(s *config.Settings) { s.Color = config.ColorAlways },
		},
		{
			"state beside the file",
			config.Sources{Env: home, Path: "/etc/millrace/millrace.yaml", File: []byte("state: data\n")},
			func(s *config.Settings) { s.State = "/etc/millrace/data" },
		},
		{
			"state at home",
			config.Sources{Env: home, Path: "millrace.yaml", File: []byte("state: ~/m\n")},
			func(s *config.Settings) { s.State = "/home/ada/m" },
		},
		{
			"state as a flag is taken as it is",
			config.Sources{Env: home, Flags: map[string]string{"state": "here"}},
			func(s *config.Settings) { s.State = "here" },
		},
		{
			"no home, but a state",
			config.Sources{Flags: map[string]string{"state": "/s"}},
			func(s *config.Settings) { s.State = "/s" },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.from.OS = "linux"
			got, err := config.Load(tc.from)
			if err != nil {
				t.Fatal(err)
			}
			want := defaults
			tc.want(&want)
			if diff := cmp.Diff(want, got.Settings); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		from config.Sources
		want []string // all of them
	}{
		{
			"slips, all at once",
			config.Sources{File: []byte("modell: a\n\nconcurency: 3\ntimeout: 5\n")},
			[]string{
				`millrace.yaml:1: unknown key "modell"; did you mean "model"?`,
				`millrace.yaml:3: unknown key "concurency"; did you mean "concurrency"?`,
				`millrace.yaml:4: timeout: "5" needs a unit, for example 5s or 5m`,
			},
		},
		{
			"dashes",
			config.Sources{Path: "/a/b.yaml", File: []byte("api-key: a\n")},
			[]string{`/a/b.yaml:1: unknown key "api-key"; did you mean "api_key"?`},
		},
		{"far off", config.Sources{File: []byte("workers: 8\n")}, []string{`:1: unknown key "workers"; the keys are server, model`}},
		{"twice", config.Sources{File: []byte("model: a\nserver: b\nmodel: c\n")}, []string{"millrace.yaml:3: ", "model"}},
		{"no value", config.Sources{File: []byte("model:\n")}, []string{"millrace.yaml:1: model: there is no value"}},
		{"a list", config.Sources{File: []byte("model: [a, b]\n")}, []string{"millrace.yaml:1: model: ", "single text"}},
		{"nested", config.Sources{File: []byte("server:\n  url: x\n")}, []string{"millrace.yaml:1: server: ", "single text"}},
		{"not settings", config.Sources{File: []byte("- a\n- b\n")}, []string{"millrace.yaml:1: settings are lines such as"}},
		{"plain text", config.Sources{File: []byte("hello\n")}, []string{"millrace.yaml:1: settings are lines such as"}},
		{"two documents", config.Sources{File: []byte("model: a\n---\nmodel: b\n")}, []string{"second document"}},
		{"not YAML", config.Sources{File: []byte("model: a\n\tb: [\n")}, []string{"millrace.yaml:2: this is not YAML"}},
		{"huge", config.Sources{File: bytes.Repeat([]byte("# x\n"), 20_000)}, []string{"larger than 64 KiB"}},
		{
			"environment",
			config.Sources{Env: with("MILLRACE_CONCURRENCY", "0")},
			[]string{`MILLRACE_CONCURRENCY: concurrency: "0" is neither auto nor a number from 1 to 4096`},
		},
		{"too many", config.Sources{Flags: map[string]string{"concurrency": "4097"}}, []string{"--concurrency: concurrency: "}},
		{"encoding", config.Sources{Flags: map[string]string{"encoding": "ebcdic"}}, []string{`unknown encoding "ebcdic"`}},
		{"negative", config.Sources{Flags: map[string]string{"patience": "-1s"}}, []string{"-1s is negative"}},
		{"zero", config.Sources{Flags: map[string]string{"timeout": "0s"}}, []string{"0s is too short"}},
		{"no duration", config.Sources{Flags: map[string]string{"timeout": "soon"}}, []string{`"soon" is not a duration`}},
		{"colour", config.Sources{Flags: map[string]string{"color": "red"}}, []string{`"red" is none of auto`}},
		{"scheme", config.Sources{Flags: map[string]string{"server": "ftp://x"}}, []string{`"ftp" is not a way`}},
		{"address", config.Sources{Flags: map[string]string{"server": "a b"}}, []string{"has a space"}},
		{"no address", config.Sources{Flags: map[string]string{"server": ""}}, []string{"needs an address"}},
		{"key", config.Sources{Flags: map[string]string{"api_key": "abc\n"}}, []string{"--api-key: api_key: ", "line end"}},
		{"flag", config.Sources{Flags: map[string]string{"colour": "red"}}, []string{"--colour is not a setting"}},
		{"no home", config.Sources{Env: map[string]string{}}, []string{"default: state: there is no home directory"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.from.OS = "linux"
			if tc.from.Env == nil {
				tc.from.Env = home
			}
			c, err := config.Load(tc.from)
			if err == nil {
				t.Fatalf("no error, but %+v", c.Settings)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q\nwant it to contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "abc") {
				t.Errorf("a secret in the error: %q", err)
			}
		})
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Sources{
		OS: "linux", Path: "/w/millrace.yaml",
		Env:   with("MILLRACE_API_KEY", "sk-very-secret", "MILLRACE_SERVER", "http://ada:lovelace@box:1"),
		File:  []byte("# the office box\nmodel: llama3.1:8b\n\ntimeout: 90s\n"),
		Flags: map[string]string{"concurrency": "8"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Value{
		{Key: "server", Value: "http://ada:xxxxx@box:1", Source: "MILLRACE_SERVER"},
		{Key: "model", Value: "llama3.1:8b", Source: "/w/millrace.yaml:2"},
		{Key: "state", Value: "/home/ada/.local/state/millrace", Source: "default"},
		{Key: "concurrency", Value: "8", Source: "--concurrency"},
		{Key: "encoding", Value: "auto", Source: "default"},
		{Key: "patience", Value: "5m", Source: "default"},
		{Key: "timeout", Value: "90s", Source: "/w/millrace.yaml:4"},
		{Key: "api_key", Value: "********", Source: "MILLRACE_API_KEY"},
		{Key: "color", Value: "auto", Source: "default"},
	}
	if diff := cmp.Diff(want, c.Values()); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if c.APIKey != "sk-very-secret" || c.Server != "http://ada:lovelace@box:1" {
		t.Error("masking is for show only")
	}
}

func TestServerIsShownWithoutPassword(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"http://box:1":              "http://box:1",
		"box:11434":                 "box:11434",
		"https://u:p@box/v1":        "https://u:xxxxx@box/v1",
		"https://u:p@ss@box":        "https://u:xxxxx@box",
		"u:pw@box:1":                "xxxxx@box:1",
		"http://u:%zz@box":          "http://xxxxx@box",
		"https://token@example.com": "https://token@example.com",
	} {
		c, err := config.Load(config.Sources{OS: "linux", Env: home, Flags: map[string]string{"server": in}})
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := c.Values()[0].Value; got != want {
			t.Errorf("%s is shown as %s, want %s", in, got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Sources{OS: "linux", Env: with(
		"MILLRACE_SERVR", "x", "MILLRACE_CACHE", "/c", "MILLRACE_MODEL", "m", "millrace_model", "m", "MILLRACE_model", "m", "PATH", "/bin",
	)})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"MILLRACE_SERVR is not a setting and has no effect; did you mean MILLRACE_SERVER?",
		"MILLRACE_model is not a setting and has no effect; did you mean MILLRACE_MODEL?",
	}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestDirectories(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		os    string
		env   map[string]string
		state string
		files []string
	}{
		{
			"linux", home, "/home/ada/.local/state/millrace",
			[]string{"millrace.yaml", "/home/ada/.config/millrace/millrace.yaml"},
		},
		{
			"linux", with("XDG_STATE_HOME", "/var/s/", "XDG_CONFIG_HOME", "/var/c"), "/var/s/millrace",
			[]string{"millrace.yaml", "/var/c/millrace/millrace.yaml"},
		},
		{
			"freebsd", with("XDG_STATE_HOME", "relative"), "/home/ada/.local/state/millrace",
			[]string{"millrace.yaml", "/home/ada/.config/millrace/millrace.yaml"},
		},
		{
			"darwin",
			map[string]string{"HOME": "/Users/ada"},
			"/Users/ada/Library/Application Support/millrace",
			[]string{"millrace.yaml", "/Users/ada/Library/Application Support/millrace/millrace.yaml"},
		},
		{
			"windows",
			map[string]string{"LOCALAPPDATA": `C:\Users\ada\AppData\Local`, "APPDATA": `C:\Users\ada\AppData\Roaming`},
			`C:\Users\ada\AppData\Local\millrace`,
			[]string{"millrace.yaml", `C:\Users\ada\AppData\Roaming\millrace\millrace.yaml`},
		},
	} {
		c, err := config.Load(config.Sources{OS: tc.os, Env: tc.env})
		if err != nil {
			t.Errorf("%s: %v", tc.os, err)
			continue
		}
		if c.State != tc.state {
			t.Errorf("%s: state is %q, want %q", tc.os, c.State, tc.state)
		}
		if diff := cmp.Diff(tc.files, config.Files(tc.os, tc.env)); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", tc.os, diff)
		}
	}
}

func TestStateInFileOnWindows(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`D:\data`: `D:\data`,
		`data`:    `C:\w\data`,
		`~\data`:  `C:\Users\ada\data`,
		`\\nas\m`: `\\nas\m`,
	} {
		c, err := config.Load(config.Sources{
			OS: "windows", Env: map[string]string{"USERPROFILE": `C:\Users\ada`},
			Path: `C:\w\millrace.yaml`, File: []byte("state: " + in + "\n"),
		})
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if c.State != want {
			t.Errorf("%s becomes %s, want %s", in, c.State, want)
		}
	}
}

func TestEveryKeyHasItsNames(t *testing.T) {
	t.Parallel()
	for _, k := range config.Keys() {
		if k[1] == "" {
			t.Errorf("%s is not explained", k[0])
		}
	}
	if got := config.FlagName("api_key"); got != "--api-key" {
		t.Errorf("flag of api_key is %s", got)
	}
	if got := config.EnvName("api_key"); got != "MILLRACE_API_KEY" {
		t.Errorf("variable of api_key is %s", got)
	}
}

// FuzzFile: any bytes give settings or an error that says where, and text that
// is taken survives.
func FuzzFile(f *testing.F) {
	for _, s := range []string{
		"model: a\n", "# c\n", "server: {a: b}\n", "model: |\n  x\n", "a: &b c\nd: *b\n", "? model\n: x\n", "model: !!str 1\n", "---\n...\n",
		"timeout: 1e3\n", "model: 'a'\r\nserver: \"b\"\n", "\xff\xfe", "model: a\n---\nmodel: b\n", "<<: {model: a}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := config.Load(config.Sources{OS: "linux", Env: home, File: b})
		if err != nil {
			if !strings.Contains(err.Error(), "millrace.yaml:") {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		if n := len(c.Values()); n != len(config.Keys()) {
			t.Fatalf("%d values", n)
		}
	})
}
