package config

import (
	"errors"
	"strings"
)

// Files lists where a settings file is looked for, first to last: the working
// directory, then the user's configuration directory. The first that exists is
// the one that counts.
func Files(goos string, env map[string]string) []string {
	files := []string{FileName}
	var dir string
	switch goos {
	case "windows":
		dir = env["AppData"]
		if dir == "" {
			dir = env["APPDATA"]
		}
	case "darwin":
		dir = under(goos, env["HOME"], "Library", "Application Support")
	default:
		dir = xdg(env["XDG_CONFIG_HOME"])
		if dir == "" {
			dir = under(goos, env["HOME"], ".config")
		}
	}
	if dir != "" {
		files = append(files, join(goos, dir, "millrace", FileName))
	}
	return files
}

// stateDir is the default state directory: by the XDG base directory
// specification on Linux and other Unix, by each vendor's rules elsewhere.
func stateDir(from Sources) (string, error) {
	var dir string
	switch from.OS {
	case "windows":
		dir = from.Env["LocalAppData"]
		if dir == "" {
			dir = from.Env["LOCALAPPDATA"]
		}
	case "darwin":
		dir = under(from.OS, from.Env["HOME"], "Library", "Application Support")
	default:
		dir = xdg(from.Env["XDG_STATE_HOME"])
		if dir == "" {
			dir = under(from.OS, from.Env["HOME"], ".local", "state")
		}
	}
	if dir == "" {
		return "", errors.New("there is no home directory to keep it in; name a directory with --state or MILLRACE_STATE")
	}
	return join(from.OS, dir, "millrace"), nil
}

// xdg drops a path that is not absolute: the specification says to ignore it.
func xdg(dir string) string {
	if strings.HasPrefix(dir, "/") {
		return dir
	}
	return ""
}

func under(goos, home string, parts ...string) string {
	if home == "" {
		return ""
	}
	return join(goos, append([]string{home}, parts...)...)
}

// join is filepath.Join for the given system, not the one this runs on.
func join(goos string, parts ...string) string {
	sep := "/"
	if goos == "windows" {
		sep = `\`
	}
	for i, p := range parts[:len(parts)-1] {
		parts[i] = strings.TrimRight(p, sep)
	}
	return strings.Join(parts, sep)
}

// resolve makes a path in the settings file mean the same from everywhere: ~
// is the home directory, and a relative path starts at the file's directory.
func resolve(from Sources, path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || isSep(from.OS, rest[0])) {
		home := from.Env["HOME"]
		if from.OS == "windows" {
			home = from.Env["USERPROFILE"]
		}
		if home != "" {
			return home + rest
		}
	}
	dir := from.Path
	for dir != "" && !isSep(from.OS, dir[len(dir)-1]) {
		dir = dir[:len(dir)-1]
	}
	if path == "" || isAbs(from.OS, path) || dir == "" {
		return path
	}
	return dir + path
}

func isSep(goos string, c byte) bool { return c == '/' || goos == "windows" && c == '\\' }

func isAbs(goos, path string) bool {
	if goos == "windows" && len(path) > 2 && path[1] == ':' && isSep(goos, path[2]) {
		return true
	}
	return isSep(goos, path[0])
}
