// Package redact keeps secrets out of what the program prints.
//
// A [Set] has the secrets of a configuration and of the command line. The program passes text that
// may quote them through [Set.Text], or writes it to the writer that [NewWriter] returns. That
// includes texts of libraries, which quote what they couldn't parse.
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
	// minLength is the length in bytes from which a secret is replaced. If shorter ones were
	// replaced, the password "a" would make every text unreadable.
	minLength = 4
	// minLengthInWords is the length from which a secret is also replaced inside other words.
	minLengthInWords = 8
)

// common are values that protect nothing and occur in ordinary messages.
var common = []string{
	"admin", "debug", "default", "error", "false", "guest", "info", "json", "localhost", "mysql",
	"none", "null", "password", "pentrough", "postgres", "postgresql", "prod", "production", "public",
	"rabbitmq", "redis", "root", "secret", "staging", "test", "text", "true", "user", "warn",
}

// exampleUsers are the user parts of URLs in the descriptions of settings.
var exampleUsers = []string{"user:password", "guest:guest"}

func isCommon(value string) bool { return slices.Contains(common, strings.ToLower(value)) }

// Set is a set of secrets. Several goroutines may call its methods. The zero value and nil are
// empty sets. A nil set ignores additions.
type Set struct {
	mu sync.RWMutex
	// secrets are always replaced. values are replaced unless they are in open.
	secrets, values, open map[string]bool
	// forms are all spellings of the secrets, the longest first. It is nil after a change.
	forms []string
}

// Secret adds a secret. If the secret is a URL, Secret adds its user part as another one.
func (s *Set) Secret(value string) {
	if isURL(value) {
		s.URL(value)
	}
	s.changeSet(func() { addTo(&s.secrets, value) })
}

// Value adds the value of an environment variable. A value counts as a secret unless it is a
// number of up to five digits, a duration, an IP address with or without a port, or an absolute
// path.
func (s *Set) Value(value string) {
	if !isPlainValue(value) {
		s.changeSet(func() { addTo(&s.values, value) })
	}
}

// Open marks a value that may be shown, because a setting that isn't a secret has it. It undoes
// Value, and doesn't undo Secret.
func (s *Set) Open(value string) { s.changeSet(func() { addTo(&s.open, value) }) }

// URL adds the user part of a URL, even if the URL can't be parsed. The host of the URL may be
// shown. So may its path, unless the URL is an HTTP one: webhooks often have a secret in their
// path.
func (s *Set) URL(text string) {
	user, ok := userPart(text)
	if !ok {
		user = ""
	}
	u, parseErr := url.Parse(text)
	s.changeSet(func() {
		if parseErr == nil && (u.User != nil || !ok) {
			addTo(&s.open, u.Host)
			addTo(&s.open, u.Hostname())
			if !isHTTP(u.Scheme) {
				addTo(&s.open, strings.TrimPrefix(u.Path, "/"))
			}
		}
		if user == "" {
			return
		}
		addTo(&s.secrets, user)
		name, password, has := strings.Cut(user, ":")
		if !has {
			addTo(&s.secrets, name)
			return
		}
		addTo(&s.open, name) // error messages name the user
		addTo(&s.secrets, password)
		if decoded, err := url.PathUnescape(password); err == nil {
			addTo(&s.secrets, decoded)
			if !isCommon(decoded) {
				if name, err := url.PathUnescape(name); err == nil {
					// HTTP basic authentication encodes the two like this.
					addTo(&s.secrets, base64.StdEncoding.EncodeToString([]byte(name+":"+decoded)))
				}
			}
		}
		// A parser may take another character for the end of the user part, and quote one side
		// of it.
		for i := range password {
			if strings.IndexByte("/?#@", password[i]) >= 0 {
				addTo(&s.secrets, name+":"+password[:i])
				addTo(&s.secrets, password[:i])
				addTo(&s.secrets, password[i+1:])
			}
		}
	})
}

// changeSet makes a change under the lock.
func (s *Set) changeSet(change func()) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.forms = nil
}

func addTo(set *map[string]bool, value string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	(*set)[value] = true
}

// isPlainValue reports whether a variable's value looks like an address or a quantity.
func isPlainValue(v string) bool {
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

// Text returns text without the secrets of the set. It also removes the user part of every URL
// that has a password, even if the set doesn't have it.
func (s *Set) Text(text string) string {
	for _, form := range s.writtenForms() {
		text = replaceSecret(text, form)
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

// replaceSecret replaces a secret in a text. If the secret is short or a number, only whole words
// are replaced.
func replaceSecret(text, secret string) string {
	number := strings.Trim(secret, "0123456789") == ""
	if len(secret) >= minLengthInWords && !number || !strings.Contains(text, secret) {
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
		whole := !isWordByte(before) && (end == len(text) || !isWordByte(text[end]))
		b.WriteString(text[:i])
		switch {
		case !whole:
			b.WriteString(secret)
		case number && strings.IndexByte(":,[", before) >= 0 && end < len(text) && strings.IndexByte(",]}", text[end]) >= 0:
			b.WriteString(`"` + Mark + `"`) // a JSON number becomes a JSON string
		default:
			b.WriteString(Mark)
		}
		before, text = secret[len(secret)-1], text[end:]
	}
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// writtenForms returns all spellings of the secrets, the longest first.
func (s *Set) writtenForms() []string {
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

// addForms adds the spellings of a secret: as it is, and as Go, JSON, Python, XML and URLs write
// it. It adds each spelling once more as a Go string, because a log line may quote an error that
// quotes the secret. If a secret has several lines, each line is added too.
func addForms(all map[string]bool, secret string) {
	if len(secret) < minLength || isCommon(secret) {
		return
	}
	if trimmed := strings.TrimSpace(secret); trimmed != secret {
		addForms(all, trimmed)
	}
	inJSON, _ := json.Marshal(secret) // a string can always be encoded
	inPython := strings.ReplaceAll(secret, `\`, `\\`)
	for _, form := range []string{
		secret, withoutQuotes(strconv.Quote(secret)), withoutQuotes(strconv.QuoteToASCII(secret)),
		withoutQuotes(string(inJSON)), strings.ReplaceAll(secret, "/", `\/`),
		inPython, strings.ReplaceAll(inPython, "'", `\'`), strings.ReplaceAll(secret, "'", `\'`),
		url.QueryEscape(secret), url.PathEscape(secret), url.User(secret).String(), html.EscapeString(secret),
	} {
		all[form] = true
		all[withoutQuotes(strconv.Quote(form))] = true
	}
	if lines := strings.Split(secret, "\n"); len(lines) > 1 {
		for _, line := range lines {
			if line = strings.TrimSpace(line); len(line) >= minLengthInWords {
				all[line] = true
			}
		}
	}
}

// withoutQuotes returns a quoted text without its quotes.
func withoutQuotes(quoted string) string { return quoted[1 : len(quoted)-1] }
