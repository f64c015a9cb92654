package redact

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

var scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)

func isHTTP(scheme string) bool {
	return strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")
}

func isURL(text string) bool { return scheme.MatchString(text) }

// userPart returns the user part of a URL as its author meant it. The author may have forgotten to
// escape a reserved character. That character doesn't end the user part here, as it would for a
// parser.
func userPart(text string) (string, bool) {
	start := scheme.FindString(text)
	if start == "" {
		return "", false
	}
	rest := text[len(start):]
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if i := strings.LastIndexByte(rest[:end], '@'); i >= 0 {
		// A later @ belongs to the password too, unless the text before it is a path.
		if j := strings.LastIndexByte(rest, '@'); end == len(rest) || rest[end] == '/' || j < end {
			return rest[:i], true
		}
	}
	i := strings.LastIndexByte(rest, '@')
	if i < 0 || !strings.Contains(rest[:end], ":") && end < len(rest) && rest[end] != '#' {
		return "", false
	}
	query := strings.IndexByte(rest, '?')
	web := isHTTP(strings.TrimSuffix(start, "://"))
	_, err := url.Parse(text)
	switch {
	case err != nil:
		return rest[:i], true
	case web && rest[end] != '#', query > end && i > query:
		// https://host:8080/a@b and postgres://host:5432/db?x=a@b have no user part.
		return "", false
	}
	return rest[:i], true
}

// Unescaped says which characters of a URL's user part must be escaped, and how. It quotes nothing
// else of the user part. It returns "" if no character must be escaped.
func Unescaped(text string) string {
	user, ok := userPart(text)
	if !ok {
		return ""
	}
	var found []string
	seen := map[byte]bool{}
	for i := range len(user) {
		c := user[i]
		if isAllowedInUser(c) || c == '%' && i+2 < len(user) && isHexDigit(user[i+1]) && isHexDigit(user[i+2]) || seen[c] {
			continue
		}
		seen[c] = true
		if c < ' ' || c >= 0x7f {
			found = append(found, fmt.Sprintf("the byte 0x%02x as %%%02X", c, c))
		} else {
			found = append(found, fmt.Sprintf("%q as %%%02X", string(rune(c)), c))
		}
	}
	return strings.Join(found, ", ")
}

func isHexDigit(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

// isAllowedInUser reports whether a user part may have a character without escaping it (RFC 3986,
// 3.2.1).
func isAllowedInUser(c byte) bool {
	return c < 0x80 && isWordByte(c) || strings.IndexByte("-._~!$&'()*+,;=:", c) >= 0
}
