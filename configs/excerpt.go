package configs

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/spelling"
)

// excerpts shows lines of a file in problems, without secrets. It hides what [redact.Set] knows to
// be a secret. It also hides the value of every key whose name looks like that of a secret: often
// the problem is a misspelt key of a secret, and then no plugin knows that the value is secret.
type excerpts struct {
	src     string
	secrets *redact.Set
	// lines has the offset of each line.
	lines []int
	// values has all values, sorted by offset. long has those that span several lines.
	values, long []value
	// guessed has the probable secrets of a file that the parser can't read.
	guessed []span
}

// value is the place of the value of a key or a list element.
type value struct {
	span
	path string
}

// newExcerpts returns the excerpts of a file. broken means that the parser can't read the file.
func newExcerpts(at *positions, secrets *redact.Set, broken bool) *excerpts {
	e := &excerpts{src: at.src, secrets: secrets}
	begin := markLength(at.src)
	for line := range strings.Lines(at.src[begin:]) {
		e.lines = append(e.lines, begin)
		begin += len(line)
	}
	e.lines = append(e.lines, begin)
	for path, where := range at.values {
		v := value{where, path}
		e.values = append(e.values, v)
		if strings.Contains(at.src[where.begin:where.end], "\n") {
			e.long = append(e.long, v)
		}
	}
	slices.SortFunc(e.values, func(a, b value) int { return cmp.Compare(a.begin, b.begin) })
	if broken {
		e.guessed = guessedSecrets(at.src)
	}
	return e
}

// at returns the line of a position with a caret below the column. It returns "" if the line can't
// be shown.
func (e *excerpts) at(p Position) string {
	line := span{e.lines[p.Line-1], len(e.src)}
	if p.Line < len(e.lines) {
		line.end = e.lines[p.Line]
	}
	hidden := e.hidden(line)
	place := min(line.begin+p.Column-1, line.end)
	before, after := e.shown(span{line.begin, place}, hidden), e.shown(span{place, line.end}, hidden)
	if slices.ContainsFunc(hidden, func(s span) bool { return s.begin < place && place < s.end }) {
		before = strings.TrimSuffix(before, redact.Mark) // the caret is below the mark
	}
	whole := e.secrets.Text(before + after)
	if before, after = e.secrets.Text(before), e.secrets.Text(after); whole != before+after {
		return "" // the caret would be inside a secret
	}
	return plugin.Caret(before+after, len(before))
}

// hidden returns the parts of a line to hide, in order.
func (e *excerpts) hidden(line span) (all []span) {
	from := func(pos int) int {
		i, _ := slices.BinarySearchFunc(e.values, pos, func(v value, pos int) int { return cmp.Compare(v.begin, pos) })
		return i
	}
	for _, v := range slices.Concat(e.long, e.values[from(line.begin):from(line.end)]) {
		if v.begin < line.end && line.begin < v.end && mayBeSecret(v.path) {
			all = append(all, v.span)
		}
	}
	for _, g := range e.guessed {
		if g.begin < line.end && line.begin < g.end {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })
	joined := all[:0]
	for _, h := range all {
		if n := len(joined); n > 0 && h.begin <= joined[n-1].end {
			joined[n-1].end = max(joined[n-1].end, h.end)
		} else {
			joined = append(joined, h)
		}
	}
	return joined
}

// shown returns a part of a line with marks in place of the hidden parts.
func (e *excerpts) shown(part span, hidden []span) string {
	var b strings.Builder
	begin := part.begin
	for _, h := range hidden {
		if h.end > begin && h.begin < part.end {
			b.WriteString(e.src[begin:max(begin, h.begin)] + redact.Mark)
			begin = min(h.end, part.end)
		}
	}
	return b.String() + e.src[begin:part.end]
}

// secretWords matches names of settings that may be secret. Environments, headers and URLs can
// have secrets in them.
var (
	secretWords = regexp.MustCompile(`(?i)pass|pwd|secret|token|auth|cookie|credential|session|signature|(api|access|account|signing|encryption)[_-]?key|connection_?string|private|^(pin|env|headers|url|uri|dsn|endpoint)$`)
	secretKeys  = []string{"password", "secret", "token", "headers", "env", "url", "endpoint", "authorization", "cookie"}
)

// mayBeSecret reports whether the name of a key, or of a table around it, looks like that of a
// secret.
func mayBeSecret(path string) bool {
	for ; path != ""; path = plugin.Parent(path) {
		name := strings.Trim(path[len(plugin.Parent(path)):], `."`)
		if secretWords.MatchString(name) || spelling.Nearest(name, secretKeys) != "" {
			return true
		}
	}
	return false
}

var (
	assignment = regexp.MustCompile(`([\w.-]+)["']?[ \t]*[=:][ \t]*`)
	tableName  = regexp.MustCompile(`^[ \t]*\[+([^\]\r\n]*)`)
)

// guessedSecrets returns the values that may be secrets in a file that the parser can't read. The
// end of such a value isn't certain. A guessed value ends with its line. If it may continue in the
// next lines, it ends with the file.
func guessedSecrets(src string) (all []span) {
	begin := 0
	inSecretTable := false // all values of a table such as env may be secrets
	for line := range strings.Lines(src) {
		if m := tableName.FindStringSubmatch(line); m != nil {
			inSecretTable = mayBeSecret(m[1])
		}
		for _, m := range assignment.FindAllStringSubmatchIndex(line, -1) {
			if !inSecretTable && !mayBeSecret(line[m[2]:m[3]]) {
				continue
			}
			value := strings.TrimSpace(line[m[1]:])
			end := begin + len(strings.TrimRight(line, "\r\n"))
			if strings.Contains(value, `"""`) || strings.Contains(value, "'''") || strings.HasPrefix(value, "[") || strings.HasPrefix(value, "{") {
				end = len(src)
			}
			all = append(all, span{begin + m[1], end})
			break
		}
		begin += len(line)
	}
	return all
}
