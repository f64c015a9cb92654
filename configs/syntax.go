package configs

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// decodeTOML decodes TOML and never panics. The parser panics if it believes that it has found a
// bug of its own.
func decodeTOML(data string, into *map[string]any) (meta toml.MetaData, err error) {
	defer func() {
		// The text of the panic isn't used, because it may quote a secret of the file.
		if recover() != nil {
			err = errors.New("the parser can't read this TOML")
		}
	}()
	return toml.Decode(data, into)
}

var (
	quotedToken = regexp.MustCompile(` ?(but found |but got )?"(?:[^"\\]|\\.){2,}"( instead)?`)
	outOfRange  = regexp.MustCompile(`^\S+ is out of range for \S+$`)
	defined     = regexp.MustCompile(`(?s)^Key '(.*)' (?:has|was) already `)
	// otherWords are words that other languages have as values, and TOML doesn't.
	otherWords = regexp.MustCompile(`^(?i:true|false|yes|no|on|off|null|nil|none)\b`)
)

// syntaxProblem returns the problem of a parser's error. It leaves out the text that the parser
// quotes, because it may be a password without quotes.
func (p *positions) syntaxProblem(err error) problem {
	parse, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return problem{at: &Position{1, 1}, message: err.Error(), unread: true}
	}
	if key := defined.FindStringSubmatch(parse.Message); key != nil {
		if found, ok := p.twice(key[1], parse.Position.Line); ok {
			return found
		}
	}
	start := max(0, markLength(p.src)+parse.Position.Start)
	at := p.position(start)
	message := outOfRange.ReplaceAllString(parse.Message, "a number is out of range")
	message = quotedToken.ReplaceAllStringFunc(message, func(token string) string {
		if strings.Trim(token, `"' `) == "" {
			return token // only quotes
		}
		return ""
	})
	message = strings.ReplaceAll(strings.TrimRight(strings.TrimSpace(message), ".,:"), "\n", `\n`)
	switch {
	case message == "is not a table":
		message = "the key already has a value that isn't a table"
	case message == "strings cannot contain newlines":
		message = "a string has no closing quote in its line"
	case strings.HasPrefix(message, "expected value"):
		message += p.meant(start)
	case p.open != nil && (strings.Contains(message, "EOF") || strings.Contains(message, "end of file")):
		message += fmt.Sprintf("; the value that begins in line %d, column %d, has no end", p.open.Line, p.open.Column)
	}
	message = strings.NewReplacer(`'\n'`, "the end of the line", `'\x00'`, "the end of the file").Replace(message)
	return problem{at: &at, path: p.around(at), message: "not TOML: " + message, unread: true}
}

// twice returns the problem of a key that is defined twice. The second definition is at or before
// line.
func (p *positions) twice(key string, line int) (problem, bool) {
	second := -1
	for i, k := range p.keys {
		if k.at.Line <= line && toml.Key(k.names).String() == key {
			second = i
		}
	}
	if second < 0 {
		return problem{}, false
	}
	again := p.keys[second]
	first := keyAt{part: true}
	for _, k := range p.keys[:second] {
		if k.path == again.path && (first.names == nil || first.part && !k.part) {
			first = k
		}
	}
	message := "not TOML: the key is already defined"
	if first.names != nil {
		message += fmt.Sprintf(", in line %d, column %d", first.at.Line, first.at.Column)
	}
	return problem{at: &again.at, path: again.path, message: message, unread: true}, true
}

// around returns the path of the key whose line or value includes a position, or "".
func (p *positions) around(at Position) (path string) {
	for _, k := range p.keys {
		if k.at.Line == at.Line && k.at.Column <= at.Column || k.at.Line < at.Line && at.Line <= p.position(p.values[k.path].end).Line {
			path = k.path
		}
	}
	return path
}

// meant suggests a value for a text that isn't a TOML value.
func (p *positions) meant(pos int) string {
	rest := p.src[min(pos, len(p.src)):]
	switch word := strings.ToLower(otherWords.FindString(rest)); {
	case word == "true", word == "yes", word == "on":
		return "; did you mean true?"
	case word == "false", word == "no", word == "off":
		return "; did you mean false?"
	case word != "":
		return "; leave out a key that has no value"
	case rest == "" || strings.ContainsRune("\r\n#=,", rune(rest[0])):
		return ""
	}
	return "; text needs quotes"
}
