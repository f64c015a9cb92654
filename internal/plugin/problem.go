package plugin

import (
	"cmp"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/internal/redact"
)

// A Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Path is the dotted path of the key, such as `pipeline.commands.middleware[1]`.
	Path string
	// Message says what is wrong, then what is allowed, then what was probably meant.
	Message string
	// Text is the key's value if Offset says at which of its bytes it is wrong; else it is empty.
	Text   string
	Offset int
}

// Describe puts together a problem's message. Allowed and meant may be empty.
func Describe(what, allowed, meant string) string {
	if allowed != "" {
		what += "; allowed: " + allowed
	}
	if meant != "" {
		what += "; did you mean " + strconv.Quote(meant) + "?"
	}
	return what
}

// Names lists names for a message.
func Names(names []string) string {
	if len(names) == 0 {
		return "(there is none)"
	}
	return strings.Join(names, ", ")
}

func (d *Decoder) problem(path, what, allowed, meant string) {
	d.Problems = append(d.Problems, Problem{Path: path, Message: Describe(what, allowed, meant)})
}

// validate asks a decoded configuration about itself and puts each of its complaints where it belongs.
// m is the table that it was decoded from, before is how many problems there were then.
func (d *Decoder) validate(path string, m map[string]any, config any, before int) {
	v, ok := config.(interface{ Validate() error })
	if !ok {
		return
	}
	found := d.Problems[before:]
	var tell func(err error)
	tell = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				tell(e)
			}
			return
		}
		field, ok := errors.AsType[*FieldError](err)
		if !ok {
			// What is said of the whole may only follow from what is wrong with a part.
			if len(found) == 0 {
				d.problem(path, d.Redact(err.Error()), "", "")
			}
			return
		}
		at := locate(path, m, field.Field)
		for _, p := range found {
			if p.Path == at || within(p.Path, at) || within(at, p.Path) && p.Path != path {
				return
			}
		}
		d.Problems = append(d.Problems, Problem{Path: at, Message: d.redactAt(at, field.Message), Text: field.Text, Offset: field.Offset})
	}
	if err := v.Validate(); err != nil {
		tell(err)
	}
}

// locate returns the path of a field below a table. A FieldError separates keys by dots and doesn't quote those that hold dots
// themselves; the table knows them.
func locate(path string, v any, field string) string {
	if field == "" {
		return path
	}
	m, _ := v.(map[string]any)
	for _, key := range slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		if rest, ok := strings.CutPrefix(field+".", key+"."); ok {
			return locate(Join(path, key), m[key], strings.TrimSuffix(rest, "."))
		}
	}
	if path == "" {
		return field
	}
	return path + "." + field
}

// within says whether path lies below table.
func within(path, table string) bool {
	return len(path) > len(table) && strings.HasPrefix(path, table) && (path[len(table)] == '.' || path[len(table)] == '[')
}

// keep remembers a secret, so that nothing prints it.
func (d *Decoder) keep(path, secret string) {
	if secret == "" {
		return
	}
	if d.secrets == nil {
		d.secrets = map[string]string{}
	}
	d.secrets[path] = secret
	d.redactor().Secret(secret)
}

func (d *Decoder) redactor() *redact.Set {
	if d.Secrets == nil {
		d.Secrets = new(redact.Set)
	}
	return d.Secrets
}

// Redact takes every secret that was decoded out of a text that somebody else wrote.
func (d *Decoder) Redact(text string) string { return d.Secrets.Text(text) }

var quotedText = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// redactAt is Redact for a message about one field. If that is a secret, parts of it that are quoted go too: net/url, for one,
// quotes what it stumbled over.
func (d *Decoder) redactAt(path, text string) string {
	text = d.Redact(text)
	secret, ok := d.secrets[path]
	if !ok {
		return text
	}
	return quotedText.ReplaceAllStringFunc(text, func(q string) string {
		part, err := strconv.Unquote(q)
		if err != nil || part != "" && strings.Contains(secret, part) {
			return redact.Mark
		}
		return q
	})
}
