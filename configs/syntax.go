package configs

import (
	"errors"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// decodeTOML is toml.Decode that never panics: the parser panics on what it believes to be its own bugs.
func decodeTOML(data string, into *map[string]any) (meta toml.MetaData, err error) {
	defer func() {
		// What it says may quote the file.
		if recover() != nil {
			err = errors.New("not TOML that the parser can read")
		}
	}()
	return toml.Decode(data, into)
}

var (
	quotedToken = regexp.MustCompile(` ?(but found |but got )?"(?:[^"\\]|\\.){2,}"( instead)?`)
	outOfRange  = regexp.MustCompile(`^\S+ is out of range for \S+$`)
)

// syntaxProblem turns a parser's error into a problem. The parser quotes what it stumbled over, which may be a password that
// somebody forgot to put into quotes: the place says enough.
func syntaxProblem(err error) problem {
	parse, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return problem{at: &Position{1, 1}, message: err.Error()}
	}
	message := outOfRange.ReplaceAllString(parse.Message, "a number is out of range")
	message = quotedToken.ReplaceAllString(message, "")
	if message == "expected value" {
		message += "; text stands in quotes"
	}
	return problem{
		at:      &Position{max(1, parse.Position.Line), max(1, parse.Position.Col)},
		path:    parse.LastKey,
		message: "not TOML: " + strings.TrimSuffix(message, "."),
	}
}
