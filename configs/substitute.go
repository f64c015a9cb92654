package configs

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/redact"
)

// maxSecretFile is the largest file that ${file:...} reads, in bytes.
const maxSecretFile = 1 << 20

// substituter replaces ${VAR}, ${VAR:-default} and ${file:/path} in the strings of a tree.
type substituter struct {
	lookup   func(string) (string, bool)
	secrets  *redact.Set
	problems []problem
}

// tree returns v with every string substituted. A string in which something was replaced becomes a
// plugin.Substituted.
func (s *substituter) tree(path string, v any) any {
	switch v := v.(type) {
	case string:
		return s.text(path, v)
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			v[key] = s.tree(plugin.Join(path, key), v[key])
		}
	case []any:
		for i := range v {
			v[i] = s.tree(plugin.Index(path, i), v[i])
		}
	case []map[string]any:
		for i := range v {
			s.tree(plugin.Index(path, i), v[i])
		}
	}
	return v
}

func (s *substituter) text(path, source string) any {
	out, err := substitute(source, s.lookup, s.secrets)
	if strings.Contains(out.text, "://") {
		s.secrets.URL(out.text)
	}
	if err != nil {
		for _, e := range unjoin(err) {
			s.problems = append(s.problems, problem{path: path, message: e.Error()})
		}
		return source
	}
	if out.count == 0 {
		return out.text
	}
	return plugin.Substituted{Text: out.text, Source: source, Whole: out.whole, File: out.file}
}

func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// substitution is a string after substitution.
type substitution struct {
	text string
	// count is the number of replaced ${...}. whole is true if the string was a single ${...}.
	// file is true if a file was read.
	count       int
	whole, file bool
}

// substitute replaces every ${...} of source. It doesn't substitute in the values that it inserts.
func substitute(source string, lookup func(string) (string, bool), secrets *redact.Set) (substitution, error) {
	var out substitution
	var b strings.Builder
	var problems []error
	rest := source
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			b.WriteString(rest)
			break
		}
		if i > 0 && rest[i-1] == '$' {
			b.WriteString(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		b.WriteString(rest[:i])
		end := strings.IndexByte(rest[i:], '}')
		if end < 0 {
			problems = append(problems, errors.New(`"${" without "}"; allowed: ${VAR}, ${VAR:-default}, ${file:/path}, and $${ for a literal ${`))
			break
		}
		expression := rest[i+2 : i+end]
		text, isFile, err := resolve(expression, lookup)
		if err != nil {
			problems = append(problems, err)
		}
		if isFile {
			secrets.Secret(text)
		} else if !strings.HasSuffix(expression, ":-"+text) { // a default isn't secret
			secrets.Value(text)
		}
		b.WriteString(text)
		out.count++
		out.file = out.file || isFile
		out.whole = i == 0 && len(rest) == len(source) && i+end+1 == len(source)
		rest = rest[i+end+1:]
	}
	out.text = b.String()
	return out, errors.Join(problems...)
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// resolve returns the value of one ${...}. expression is the text between the braces.
func resolve(expression string, lookup func(string) (string, bool)) (text string, isFile bool, err error) {
	if path, ok := strings.CutPrefix(expression, "file:"); ok {
		text, err := readSecret(path)
		return text, true, err
	}
	name, fallback, hasFallback := strings.Cut(expression, ":-")
	if !variable.MatchString(name) {
		// The error doesn't quote the text, because it may be part of a password that only looks
		// like a substitution.
		return "", false, errors.New("one of the ${...} isn't a valid substitution; allowed: ${VAR}, ${VAR:-default}, ${file:/path}, and $${ for a literal ${")
	}
	if strings.Contains(fallback, "${") {
		return "", false, fmt.Errorf("the default of ${%s} contains another substitution; allowed: plain text", name)
	}
	value, ok := lookup(name)
	switch {
	case hasFallback && value == "":
		return fallback, false, nil
	case !ok:
		return "", false, fmt.Errorf("the variable %s is not set and has no default; a default is written ${%s:-default}", name, name)
	case !utf8.ValidString(value):
		return "", false, fmt.Errorf("the variable %s is not valid UTF-8", name)
	default:
		return value, false, nil
	}
}

// byteOrderMark is what some editors write at the start of UTF-8 text.
const byteOrderMark = "\ufeff"

// readSecret returns the text of a file without its byte order mark and its last line end.
func readSecret(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("${file:%s}: the path is not absolute", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading a substitution: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading a substitution: %w", err)
	case len(text) > maxSecretFile:
		return "", fmt.Errorf("reading a substitution: %s is larger than %d bytes", path, maxSecretFile)
	case !utf8.Valid(text):
		return "", fmt.Errorf("reading a substitution: %s is not valid UTF-8", path)
	}
	line, ended := strings.CutSuffix(strings.TrimPrefix(string(text), byteOrderMark), "\n")
	if ended {
		line = strings.TrimSuffix(line, "\r")
	}
	return line, nil
}
