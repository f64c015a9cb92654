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

// Problem is one problem of a configuration.
type Problem struct {
	// Path is the dotted path of the key, such as `pipeline.commands.middleware[1]`.
	Path string
	// Message says what is wrong, then what is allowed, then what was probably meant.
	Message string
	// Text is the key's value, and Offset the byte at which it is wrong. Without an offset, Text
	// is empty.
	Text   string
	Offset int
}

// Describe builds the message of a problem. allowed and meant may be empty.
func Describe(what, allowed, meant string) string {
	if allowed != "" {
		what += "; allowed: " + allowed
	}
	if meant != "" {
		what += "; did you mean " + strconv.Quote(meant) + "?"
	}
	return what
}

// Names formats a list of names for a message.
func Names(names []string) string {
	if len(names) == 0 {
		return "(there is none)"
	}
	return strings.Join(names, ", ")
}

func (d *Decoder) addProblem(path, what, allowed, meant string) {
	d.Problems = append(d.Problems, Problem{Path: path, Message: Describe(what, allowed, meant)})
}

// validateConfig calls Validate of a decoded configuration and adds a problem with the right path
// for each error. m is the table that the configuration was decoded from. before is the number of
// problems before its keys were decoded.
func (d *Decoder) validateConfig(path string, m map[string]any, config any, before int) {
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
			// An error about the whole table may only follow from a problem with one of its keys.
			if len(found) == 0 {
				d.addProblem(path, d.Redact(err.Error()), "", "")
			}
			return
		}
		at := locateField(path, m, field.Field)
		for _, p := range found {
			if p.Path == at || isWithin(p.Path, at) || isWithin(at, p.Path) && p.Path != path {
				return
			}
		}
		d.Problems = append(d.Problems, Problem{Path: at, Message: d.redactAt(at, field.Message), Text: field.Text, Offset: field.Offset})
	}
	if err := v.Validate(); err != nil {
		tell(err)
	}
}

// locateField returns the path of a field below a table. A FieldError separates keys by dots and
// doesn't quote keys that contain dots. The table has the real keys.
func locateField(path string, v any, field string) string {
	if field == "" {
		return path
	}
	m, _ := v.(map[string]any)
	for _, key := range slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		if rest, ok := strings.CutPrefix(field+".", key+"."); ok {
			return locateField(Join(path, key), m[key], strings.TrimSuffix(rest, "."))
		}
	}
	if path == "" {
		return field
	}
	return path + "." + field
}

// isWithin reports whether path is below table.
func isWithin(path, table string) bool {
	return len(path) > len(table) && strings.HasPrefix(path, table) && (path[len(table)] == '.' || path[len(table)] == '[')
}

// rememberSecret remembers a secret, so that no message shows it.
func (d *Decoder) rememberSecret(path, secret string) {
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

// Redact removes every decoded secret from a text of another origin.
func (d *Decoder) Redact(text string) string { return d.Secrets.Text(text) }

var quotedText = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// redactAt is Redact for a message about one field. If the field is a secret, it also removes
// quoted parts. For example, net/url quotes the part that it can't parse.
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
