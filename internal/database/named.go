package database

import (
	"fmt"
	"strings"
)

// Named is a statement that was written with named parameters, translated for a database.
type Named struct {
	Text string
	// Params has the names in the order of the statement's parameters. A name that is used twice
	// is in it twice, since the two parameters may have different types.
	Params []Param
}

// Param is a parameter, without its colon.
type Param struct {
	Name string
	// Offset is the offset of its colon in the original text.
	Offset int
}

// NamedError is an error in a statement, with its offset.
type NamedError struct {
	Offset  int
	Message string
}

func (e *NamedError) Error() string { return e.Message }

// Named translates a statement whose parameters are written :name, with dots between the parts of
// a name. It doesn't change strings, names in quotes, comments, casts (::) and colons without a
// name.
func (d Dialect) Named(text string) (Named, error) {
	var n Named
	var b strings.Builder
	fail := func(at int, format string, args ...any) (Named, error) {
		return Named{}, &NamedError{at, fmt.Sprintf(format, args...)}
	}
	for i := 0; i < len(text); {
		end, what := d.skipQuoted(text, i)
		switch {
		case end < 0:
			return fail(i, "this %s doesn't end", what)
		case end > i:
			b.WriteString(text[i:end])
			i = end
			continue
		}
		switch c := text[i]; {
		case c == ':' && i+1 < len(text) && isNameStart(text[i+1]):
			end := i + 2
			for end < len(text) && (isName(text[end]) || text[end] == '.' && end+1 < len(text) && isName(text[end+1])) {
				end++
			}
			n.Params = append(n.Params, Param{text[i+1 : end], i})
			b.WriteString(d.Parameter(len(n.Params)))
			i = end
			continue
		case c == ':' && i+1 < len(text) && (text[i+1] == ':' || text[i+1] == '='):
			b.WriteString(text[i : i+2])
			i += 2
			continue
		case c == '?' && !d.Numbered, c == '$' && d.Numbered && i+1 < len(text) && text[i+1] >= '0' && text[i+1] <= '9':
			return fail(i, "parameters have names here, such as :device")
		case c == ';':
			if strings.TrimSpace(text[i+1:]) != "" {
				return fail(i, "this is more than one statement")
			}
			i = len(text)
			continue
		default:
			b.WriteByte(c)
		}
		i++
	}
	if n.Text = strings.TrimSpace(b.String()); n.Text == "" {
		return fail(0, "is empty")
	}
	return n, nil
}

// skipQuoted returns the end of the string, quoted name or comment that begins at i. It returns i
// if none begins there, and -1 if it doesn't end.
func (d Dialect) skipQuoted(text string, i int) (end int, what string) {
	rest := text[i:]
	switch {
	case rest[0] == '\'':
		escapes := d.OnDuplicateKey || d.Numbered && i > 0 && (text[i-1] == 'E' || text[i-1] == 'e') && (i == 1 || !isName(text[i-2]))
		return quotedEnd(text, i, escapes), "string"
	case rest[0] == '"':
		return quotedEnd(text, i, d.OnDuplicateKey), "name in quotes"
	case rest[0] == '`' && !d.Numbered:
		return quotedEnd(text, i, false), "name in quotes"
	case strings.HasPrefix(rest, "--"), rest[0] == '#' && d.OnDuplicateKey:
		if n := strings.IndexByte(rest, '\n'); n >= 0 {
			return i + n, "comment"
		}
		return len(text), "comment"
	case strings.HasPrefix(rest, "/*"):
		for at, depth := i+2, 1; at < len(text); at++ {
			switch {
			case strings.HasPrefix(text[at:], "*/"):
				if depth--; depth == 0 || !d.Numbered { // only PostgreSQL's comments can be nested
					return at + 2, "comment"
				}
				at++
			case strings.HasPrefix(text[at:], "/*"):
				depth++
				at++
			}
		}
		return -1, "comment"
	case rest[0] == '$' && d.Numbered && (i == 0 || !isName(text[i-1])):
		tag := strings.IndexByte(rest[1:], '$')
		if tag < 0 || strings.ContainsFunc(rest[1:1+tag], func(r rune) bool { return r > 0x7f || !isName(byte(r)) }) || tag > 0 && !isNameStart(rest[1]) {
			return i, ""
		}
		word := rest[:tag+2]
		if n := strings.Index(rest[len(word):], word); n >= 0 {
			return i + len(word) + n + len(word), "string"
		}
		return -1, "string"
	}
	return i, ""
}

// quotedEnd returns the end of the string or name whose opening quote is at i, or -1. A doubled
// quote doesn't end it. Nor does one after a backslash, if escapes is true.
func quotedEnd(text string, i int, escapes bool) int {
	for at := i + 1; at < len(text); at++ {
		switch {
		case escapes && text[at] == '\\':
			at++
		case text[at] == text[i] && at+1 < len(text) && text[at+1] == text[i]:
			at++
		case text[at] == text[i]:
			return at + 1
		}
	}
	return -1
}

func isNameStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isName(c byte) bool { return isNameStart(c) || c >= '0' && c <= '9' }
