package llm

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// BaseURL turns what people write for a server's address into a base URL
// without a trailing slash: "gpu1:8000", ":8080", "::1", "0.0.0.0" (which is
// where a server listens, not where it is reached), a pasted API path.
//
// defaultPort is the port of an address without scheme and port, "" for the
// scheme's own; an address with a scheme means that scheme's port, as in
// OLLAMA_HOST. A path that begins with one of drop is cut off there:
// "/v1/models" by "/v1". Credentials in the address are kept.
func BaseURL(address, defaultPort string, drop ...string) (string, error) {
	s := strings.Trim(strings.TrimSpace(address), `"'`)
	if strings.ContainsFunc(s, unicode.IsSpace) || strings.ContainsAny(s, `"'`) {
		return "", fmt.Errorf("server address %q holds spaces or quotes", hideUser(address))
	}
	scheme, rest, hasScheme := strings.Cut(s, "://")
	if !hasScheme {
		scheme, rest = "http", s
	}
	scheme = strings.ToLower(scheme)
	if scheme != "http" && scheme != "https" {
		return "", fmt.Errorf("server address %q: the scheme has to be http or https", address)
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, _, _ = strings.Cut(rest, "?")
	hostport, path, _ := strings.Cut(rest, "/")
	user := ""
	if i := strings.LastIndexByte(hostport, '@'); i >= 0 {
		user, hostport = hostport[:i+1], hostport[i+1:]
	}
	host, port := hostport, ""
	if ip := net.ParseIP(strings.Trim(hostport, "[]")); ip == nil {
		if h, p, err := net.SplitHostPort(hostport); err == nil {
			host, port = h, p
		}
	}
	host = strings.Trim(host, "[]")
	if port == "" && !hasScheme {
		port = defaultPort
	}
	if port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
			return "", fmt.Errorf("server address %q: %q is not a port", hideUser(address), port)
		}
	}
	switch ip := net.ParseIP(host); {
	case host == "" || ip != nil && ip.IsUnspecified() && ip.To4() != nil:
		host = "127.0.0.1"
	case ip != nil && ip.IsUnspecified():
		host = "::1"
	}
	switch {
	case net.ParseIP(host) != nil && strings.Contains(host, ":"):
		host = "[" + host + "]"
	case strings.ContainsFunc(host, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	}):
		return "", fmt.Errorf("server address %q: %q is not a host", hideUser(address), host)
	}
	if port != "" {
		host += ":" + port
	}

	path = "/" + strings.Trim(path, "/")
	for _, d := range drop {
		if i := strings.Index(path+"/", d+"/"); i >= 0 {
			path = path[:i]
		}
	}
	base := scheme + "://" + user + host + strings.TrimRight(path, "/")
	if _, err := url.Parse(base); err != nil {
		return "", fmt.Errorf("server address %q is not a URL", hideUser(address))
	}
	return base, nil
}

// hideUser leaves credentials out of an address that is shown.
func hideUser(address string) string {
	i := strings.LastIndexByte(address, '@')
	if i < 0 {
		return address
	}
	if _, _, ok := strings.Cut(address, "://"); ok {
		return address[:strings.Index(address, "://")+3] + address[i+1:]
	}
	return address[i+1:]
}
