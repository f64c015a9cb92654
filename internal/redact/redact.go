// Package redact keeps secrets out of what the program prints.
//
// A [Set] knows the secrets of a configuration and of the command line. Text that may quote them
// passes through [Set.Text], or through the writer that [NewWriter] returns. The text of
// libraries is included: they quote what they couldn't parse.
package redact

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Mark replaces a secret.
const Mark = "[redacted]"

const (
	// shortest is the length in bytes from which a secret is replaced; without the limit, the
	// password "a" would make every text unreadable.
	shortest = 4
	// anywhere is the length from which a secret is replaced inside other words too.
	anywhere = 8
)

// common are values that protect nothing and occur in ordinary messages.
var common = []string{
	"admin", "debug", "default", "error", "false", "guest", "info", "json", "localhost", "mysql",
	"none", "null", "password", "pentrough", "postgres", "postgresql", "prod", "production", "public",
	"rabbitmq", "redis", "root", "secret", "staging", "test", "text", "true", "user", "warn",
}

// exampleUsers are the user parts of the URLs in descriptions of settings.
var exampleUsers = []string{"user:password", "guest:guest"}

func isCommon(value string) bool { return slices.Contains(common, strings.ToLower(value)) }

// Set is a set of secrets. Its methods may be called from several goroutines. The zero value and
// nil are empty; nil takes no secrets.
type Set struct {
	mu sync.RWMutex
	// secrets are always replaced; values are, unless they are in open.
	secrets, values, open map[string]bool
	// forms is how all of them may be written, the longest first; nil after a change.
	forms []string
}

// Secret adds a secret. If it is a URL, its user part is one too.
func (s *Set) Secret(value string) {
	if isURL(value) {
		s.URL(value)
	}
	s.add(func() { put(&s.secrets, value) })
}

// Value adds what a variable of the environment holds. It counts as a secret unless it is a
// number of up to five digits, a duration, an IP address with or without a port, or an absolute
// path.
func (s *Set) Value(value string) {
	if !plainValue(value) {
		s.add(func() { put(&s.values, value) })
	}
}

// Open marks a value that may be shown, because a setting that isn't a secret has it. It undoes
// Value, and doesn't undo Secret.
func (s *Set) Open(value string) { s.add(func() { put(&s.open, value) }) }

// URL adds the user part of a URL, whether or not the URL can be parsed. Its host is open, and so
// is its path, unless the path is one of HTTP: many a webhook has its secret there.
func (s *Set) URL(text string) {
	user, ok := userPart(text)
	if !ok {
		user = ""
	}
	u, parseErr := url.Parse(text)
	s.add(func() {
		if parseErr == nil && (u.User != nil || !ok) {
			put(&s.open, u.Host)
			put(&s.open, u.Hostname())
			if !isHTTP(u.Scheme) {
				put(&s.open, strings.TrimPrefix(u.Path, "/"))
			}
		}
		if user == "" {
			return
		}
		put(&s.secrets, user)
		name, password, has := strings.Cut(user, ":")
		if !has {
			put(&s.secrets, name)
			return
		}
		put(&s.open, name) // error messages name the user
		put(&s.secrets, password)
		if decoded, err := url.PathUnescape(password); err == nil {
			put(&s.secrets, decoded)
			if !isCommon(decoded) {
				if name, err := url.PathUnescape(name); err == nil {
					put(&s.secrets, base64.StdEncoding.EncodeToString([]byte(name+":"+decoded))) // as in basic authentication
				}
			}
		}
		// A parser that took another character for the end of the user part quotes one side.
		for i := range password {
			if strings.IndexByte("/?#@", password[i]) >= 0 {
				put(&s.secrets, name+":"+password[:i])
				put(&s.secrets, password[:i])
				put(&s.secrets, password[i+1:])
			}
		}
	})
}

func (s *Set) add(change func()) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.forms = nil
}

func put(set *map[string]bool, value string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	(*set)[value] = true
}

// plainValue says whether a variable's value looks like an address or a quantity.
func plainValue(v string) bool {
	if n, err := strconv.ParseFloat(v, 64); err == nil && len(v) <= 5 && n >= 0 {
		return true
	}
	if _, err := time.ParseDuration(v); err == nil {
		return true
	}
	if _, err := netip.ParseAddr(v); err == nil {
		return true
	}
	if _, err := netip.ParseAddrPort(v); err == nil {
		return true
	}
	return filepath.IsAbs(v)
}

// Text returns text without the secrets of the set, and without the user part of any URL that has
// a password, known or not.
func (s *Set) Text(text string) string {
	for _, form := range s.written() {
		text = replace(text, form)
	}
	if !strings.Contains(text, "://") {
		return text
	}
	return urls.ReplaceAllStringFunc(text, func(found string) string {
		user, _ := userPart(found)
		if !strings.Contains(user, ":") || slices.Contains(exampleUsers, strings.ToLower(user)) {
			return found
		}
		return strings.Replace(found, "://"+user+"@", "://"+Mark+"@", 1)
	})
}

var urls = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>]*@`)

// replace replaces a secret in a text: one that is short or a number only where it is a whole
// word.
func replace(text, secret string) string {
	number := strings.Trim(secret, "0123456789") == ""
	if len(secret) >= anywhere && !number || !strings.Contains(text, secret) {
		return strings.ReplaceAll(text, secret, Mark)
	}
	var b strings.Builder
	before := byte(' ')
	for {
		i := strings.Index(text, secret)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		if i > 0 {
			before = text[i-1]
		}
		end := i + len(secret)
		whole := !wordByte(before) && (end == len(text) || !wordByte(text[end]))
		b.WriteString(text[:i])
		switch {
		case !whole:
			b.WriteString(secret)
		case number && strings.IndexByte(":,[", before) >= 0 && end < len(text) && strings.IndexByte(",]}", text[end]) >= 0:
			b.WriteString(`"` + Mark + `"`) // a number of JSON becomes a string
		default:
			b.WriteString(Mark)
		}
		before, text = secret[len(secret)-1], text[end:]
	}
}

func wordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// written returns all forms in which the secrets may occur, the longest first.
func (s *Set) written() []string {
	if s == nil {
		return nil
	}
	s.mu.RLock()
	forms := s.forms
	s.mu.RUnlock()
	if forms != nil {
		return forms
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]bool{}
	for secret := range s.secrets {
		addForms(all, secret)
	}
	for value := range s.values {
		if !s.open[value] {
			addForms(all, value)
		}
	}
	s.forms = slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	if s.forms == nil {
		s.forms = []string{}
	}
	return s.forms
}

// addForms adds a secret as it is and as Go, JSON, Python, XML and URLs write it, and each of
// these in one more string: a log line that quotes an error which quotes it. Of a secret of
// several lines, each line counts.
func addForms(all map[string]bool, secret string) {
	if len(secret) < shortest || isCommon(secret) {
		return
	}
	if trimmed := strings.TrimSpace(secret); trimmed != secret {
		addForms(all, trimmed)
	}
	inJSON, _ := json.Marshal(secret) // a string always works
	inPython := strings.ReplaceAll(secret, `\`, `\\`)
	for _, form := range []string{
		secret, inner(strconv.Quote(secret)), inner(strconv.QuoteToASCII(secret)),
		inner(string(inJSON)), strings.ReplaceAll(secret, "/", `\/`),
		inPython, strings.ReplaceAll(inPython, "'", `\'`), strings.ReplaceAll(secret, "'", `\'`),
		url.QueryEscape(secret), url.PathEscape(secret), url.User(secret).String(), html.EscapeString(secret), // XML
	} {
		all[form] = true
		all[inner(strconv.Quote(form))] = true
	}
	if lines := strings.Split(secret, "\n"); len(lines) > 1 {
		for _, line := range lines {
			if line = strings.TrimSpace(line); len(line) >= anywhere {
				all[line] = true
			}
		}
	}
}

// inner returns a quoted text without its quotes.
func inner(quoted string) string { return quoted[1 : len(quoted)-1] }
