// Package config is Millrace's settings: one struct, filled from defaults,
// millrace.yaml, the environment and flags, each beating the one before it.
// It is strict, and it knows where each value came from.
//
// Nothing here touches the process: the caller hands over the environment, the
// bytes of the file and the flags.
package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/encoding/htmlindex"
)

// Settings is what a command runs with.
type Settings struct {
	Server      string        // base address of the server; "" to look for one
	Model       string        // "" for the one that is loaded, or the only one
	State       string        // directory of the cache and of unfinished runs; absolute unless a flag or variable says otherwise
	Concurrency int           // requests in flight; 0 finds the best number
	Encoding    string        // of text inputs, a WHATWG name; "" for UTF-8 or what a byte order mark says
	Patience    time.Duration // how long the server may be gone before a run gives up
	Timeout     time.Duration // for one request
	APIKey      string        // sent to the server; a secret
	Color       Color
}

// Color says when output is coloured.
type Color string

// The values of Color.
const (
	ColorAuto   Color = "auto" // on a terminal
	ColorAlways Color = "always"
	ColorNever  Color = "never"
)

// MaxConcurrency bounds the requests in flight.
const MaxConcurrency = 4096

// Value is one setting as `millrace config` prints it.
type Value struct {
	Key    string // as in millrace.yaml
	Value  string // secrets are masked
	Source string // "default", "millrace.yaml:3", "MILLRACE_MODEL", "--model"
}

// Sources is where settings come from.
type Sources struct {
	OS    string            // runtime.GOOS: decides the default directories
	Env   map[string]string // the environment
	Path  string            // of the settings file, for messages and relative paths in it
	File  []byte            // its content; nil when there is none
	Flags map[string]string // key (as in millrace.yaml) to the text given; only flags that were given
}

// Config is the settings and where each came from.
type Config struct {
	Settings
	// Warnings are variables of the environment that look like settings and are
	// not; they take no effect.
	Warnings []string

	values []Value
}

// Values lists all settings in a fixed order.
func (c *Config) Values() []Value { return slices.Clone(c.values) }

// setting is one line of the table that everything here works from.
type setting struct {
	key   string
	about string
	def   func(Sources) (string, error)
	set   func(*Settings, string) error // parses; its error says what is wrong with the value
	show  func(string) string           // for Values; nil shows it as it is
}

// settings is the surface: every key there is. Flags are --KEY with dashes,
// variables MILLRACE_KEY in capitals.
var settings = []setting{
	{
		key: "server", about: "address of the inference server",
		set: func(s *Settings, v string) error { s.Server = v; return checkServer(v) }, show: maskURL,
	},
	{
		key: "model", about: "model to ask",
		set: func(s *Settings, v string) error { s.Model = v; return nil },
	},
	{
		key: "state", about: "directory of the cache and of unfinished runs", def: stateDir,
		set: func(s *Settings, v string) error { s.State = v; return notEmpty(v, "a directory") },
	},
	{
		key: "concurrency", about: "requests in flight: auto or a number", def: constant("auto"),
		set: func(s *Settings, v string) (err error) { s.Concurrency, err = concurrency(v); return err },
	},
	{
		key: "encoding", about: "of text inputs: auto or a name such as windows-1252", def: constant("auto"),
		set: func(s *Settings, v string) (err error) { s.Encoding, err = encoding(v); return err },
	},
	{
		key: "patience", about: "how long the server may be gone before a run gives up", def: constant("5m"),
		set: func(s *Settings, v string) (err error) { s.Patience, err = duration(v, 0); return err },
	},
	{
		key: "timeout", about: "for one request", def: constant("10m"),
		set: func(s *Settings, v string) (err error) { s.Timeout, err = duration(v, time.Millisecond); return err },
	},
	{
		key: "api_key", about: "sent to a server that asks for one",
		set: func(s *Settings, v string) error { s.APIKey = v; return checkKey(v) }, show: mask,
	},
	{
		key: "color", about: "auto, always or never", def: constant(string(ColorAuto)),
		set: func(s *Settings, v string) (err error) { s.Color, err = color(v); return err },
	},
}

// Keys lists the keys of all settings with a few words on each, in order.
func Keys() [][2]string {
	var keys [][2]string
	for _, s := range settings {
		keys = append(keys, [2]string{s.key, s.about})
	}
	return keys
}

// FlagName is the flag that sets a key.
func FlagName(key string) string { return "--" + strings.ReplaceAll(key, "_", "-") }

// EnvName is the variable that sets a key.
func EnvName(key string) string { return "MILLRACE_" + strings.ToUpper(key) }

// Load works out the settings. The error names every value that is wrong and
// where it stands.
func Load(from Sources) (*Config, error) {
	file, errs := parseFile(from)
	for key := range from.Flags {
		if find(key) == nil {
			errs = append(errs, fmt.Errorf("%s is not a setting", FlagName(key)))
		}
	}
	c := &Config{Warnings: strayVariables(from.Env)}
	for _, s := range settings {
		text, source, err := s.lookup(from, file)
		if err == nil && (text != "" || source != sourceDefault) {
			err = s.set(&c.Settings, text)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", source, s.key, err))
			continue
		}
		if s.show != nil {
			text = s.show(text)
		}
		c.values = append(c.values, Value{Key: s.key, Value: text, Source: source})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

const sourceDefault = "default"

func (s *setting) lookup(from Sources, file map[string]fileValue) (text, source string, err error) {
	if v, ok := from.Flags[s.key]; ok {
		return v, FlagName(s.key), nil
	}
	// An empty variable is one that is not set, as a shell or a compose file
	// leaves it.
	if v := from.Env[EnvName(s.key)]; v != "" {
		return v, EnvName(s.key), nil
	}
	if v, ok := file[s.key]; ok {
		return v.text, v.source, nil
	}
	if s.key == "color" { // two customs older than this program
		if from.Env["NO_COLOR"] != "" {
			return string(ColorNever), "NO_COLOR", nil
		}
		if from.Env["TERM"] == "dumb" {
			return string(ColorNever), "TERM", nil
		}
	}
	if s.def == nil {
		return "", sourceDefault, nil
	}
	text, err = s.def(from)
	return text, sourceDefault, err
}

func find(key string) *setting {
	for i := range settings {
		if settings[i].key == key {
			return &settings[i]
		}
	}
	return nil
}

func constant(v string) func(Sources) (string, error) {
	return func(Sources) (string, error) { return v, nil }
}

func notEmpty(v, what string) error {
	if strings.TrimSpace(v) == "" {
		return fmt.Errorf("needs %s", what)
	}
	return nil
}

// checkServer refuses what cannot be an address. Its errors do not repeat the
// value: it may hold a password.
func checkServer(v string) error {
	if strings.ContainsAny(v, " \t\r\n") {
		return errors.New("the address has a space in it")
	}
	if scheme, _, ok := strings.Cut(v, "://"); ok && scheme != "http" && scheme != "https" {
		return fmt.Errorf("%q is not a way to reach a server; use http:// or https://", scheme)
	}
	if v == "" {
		return errors.New("needs an address such as http://127.0.0.1:11434")
	}
	return nil
}

func checkKey(v string) error {
	for _, r := range v {
		if r < 0x21 || r > 0x7e {
			return errors.New("the key has a character that no HTTP header can carry; was it copied with a line end?")
		}
	}
	return nil
}

func concurrency(v string) (int, error) {
	if v == "auto" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > MaxConcurrency {
		return 0, fmt.Errorf("%q is neither auto nor a number from 1 to %d", v, MaxConcurrency)
	}
	return n, nil
}

func encoding(v string) (string, error) {
	if v == "auto" {
		return "", nil
	}
	if _, err := htmlindex.Get(v); err != nil {
		return "", fmt.Errorf("unknown encoding %q: use auto or one such as utf-8, windows-1252, utf-16le or shift_jis", v)
	}
	return v, nil
}

func duration(v string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	switch {
	case err != nil:
		if _, e := strconv.ParseFloat(v, 64); e == nil {
			return 0, fmt.Errorf("%q needs a unit, for example %ss or %sm", v, v, v)
		}
		return 0, fmt.Errorf("%q is not a duration such as 30s, 5m or 1h30m", v)
	case d < 0:
		return 0, fmt.Errorf("%s is negative", v)
	case d < least:
		return 0, fmt.Errorf("%s is too short; the least is %s", v, least)
	}
	return d, nil
}

func color(v string) (Color, error) {
	switch c := Color(v); c {
	case ColorAuto, ColorAlways, ColorNever:
		return c, nil
	}
	return "", fmt.Errorf("%q is none of auto, always and never", v)
}

// mask hides a secret, and its length.
func mask(v string) string {
	if v == "" {
		return ""
	}
	return "********"
}

// maskURL hides a password in an address.
func maskURL(v string) string {
	at := strings.LastIndex(v, "@")
	if at < 0 {
		return v
	}
	if u, err := url.Parse(v); err == nil && u.User != nil {
		return u.Redacted()
	}
	scheme, _, ok := strings.Cut(v, "://")
	if !ok {
		return "xxxxx" + v[at:]
	}
	return scheme + "://xxxxx" + v[at:]
}
