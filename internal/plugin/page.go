package plugin

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Page is what is told about one plugin, to be rendered for a browser or a terminal.
type Page struct {
	Kind, Name           string
	Summary, Description string
	Fields               []Field
}

// Page returns the page of a plugin.
func (s *Set) Page(kind, name string) (Page, bool) {
	k, ok := s.Kind(kind)
	if !ok {
		return Page{}, false
	}
	info, ok := k.Lookup(name)
	if !ok {
		return Page{}, false
	}
	return Page{
		Kind: kind, Name: name, Summary: info.Summary, Description: info.Description, Fields: s.Fields(info.New()),
	}, true
}

// row is a setting with its dotted key, those of nested tables below their table.
type row struct {
	key   string
	field Field
}

func rows(prefix string, fields []Field) []row {
	var all []row
	for _, f := range fields {
		key := Join(prefix, f.Key)
		all = append(all, row{key, f})
		inner := f.Type
		for inner.Elem != nil {
			if inner.Shape == ShapeMap {
				key += ".NAME"
			}
			inner = *inner.Elem
		}
		all = append(all, rows(key, inner.Fields)...)
	}
	return all
}

// value says what a setting is without being set.
func (f Field) value() string {
	switch {
	case f.Required:
		return "required"
	case f.Default == nil, f.Default == "":
		return ""
	}
	if list, ok := f.Default.([]any); ok && len(list) == 0 {
		return ""
	}
	return TOML(f.Default)
}

// bounds says what is allowed.
func (f Field) bounds() string {
	if len(f.Enum) > 0 {
		return strings.Join(f.Enum, ", ")
	}
	unit := f.Unit
	switch f.Type.Shape {
	case ShapeString:
		unit = "characters"
	case ShapeList:
		unit = "elements"
	case ShapeMap:
		unit = "entries"
	}
	return strings.TrimPrefix(rangeOf(spec{min: f.Min, max: f.Max, unit: unit}), " ")
}

// about is the setting's sentence with what is allowed and an example.
func (f Field) about(code string) string {
	text := strings.TrimSpace(f.Doc)
	bounds := f.bounds()
	switch {
	case bounds != "" && len(f.Enum) > 0:
		text += " One of " + bounds + "."
	case bounds != "":
		text += " Allowed: " + bounds + "."
	case f.Unit != "":
		text += " In " + f.Unit + "."
	}
	if f.Secret {
		text += " Never printed."
	}
	if f.Example != "" && f.Example != f.value() {
		text += " Example: " + code + f.Example + code + "."
	}
	return strings.TrimSpace(text)
}

// Markdown renders the page.
func (p Page) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s %s\n\n%s\n", p.Kind, p.Name, wrap(sentence(p.Summary), ""))
	if d := strings.TrimSpace(p.Description); d != "" {
		fmt.Fprintf(&b, "\n%s\n", wrap(d, ""))
	}
	fmt.Fprintf(&b, "\n## Settings\n\n")
	if len(p.Fields) == 0 {
		b.WriteString("There are none.\n")
		return b.String()
	}
	b.WriteString("| key | type | default | |\n| --- | --- | --- | --- |\n")
	for _, r := range rows("", p.Fields) {
		value := r.field.value()
		if value != "" && !r.field.Required {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.key, cell(r.field.Type.Word()), cell(value), cell(r.field.about("`")))
	}
	return b.String()
}

// cell keeps a text inside its table cell.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}

// Text renders the page for a terminal.
func (p Page) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", wrap(p.Kind+" "+p.Name+": "+sentence(p.Summary), ""))
	if d := strings.TrimSpace(p.Description); d != "" {
		fmt.Fprintf(&b, "\n%s\n", wrap(d, ""))
	}
	if len(p.Fields) == 0 {
		b.WriteString("\nThere are no settings.\n")
		return b.String()
	}
	b.WriteString("\nSettings:\n")
	for _, r := range rows("", p.Fields) {
		fmt.Fprintf(&b, "\n  %s  %s", r.key, r.field.Type.Word())
		if value := r.field.value(); r.field.Required {
			b.WriteString(", required")
		} else if value != "" {
			fmt.Fprintf(&b, ", default %s", value)
		}
		if about := r.field.about(""); about != "" {
			fmt.Fprintf(&b, "\n%s", wrap(about, "      "))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// proseWidth is the most columns of a line of prose.
const proseWidth = 99

// wrap breaks the prose of a Markdown text into lines of at most proseWidth columns, each behind the
// indent. Tables and code stay as they are. The lines of a list's item stand below its text.
func wrap(text, indent string) string {
	var b strings.Builder
	code := false
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		trimmed := strings.TrimLeft(line, " ")
		fence := strings.HasPrefix(trimmed, "```")
		if code = code != fence; code || fence || strings.HasPrefix(trimmed, "|") {
			b.WriteString(line)
			continue
		}
		margin := indent + line[:len(line)-len(trimmed)]
		b.WriteString(margin)
		if strings.HasPrefix(trimmed, "- ") {
			margin += "  "
		}
		column := utf8.RuneCountInString(margin)
		for j, word := range strings.Fields(trimmed) {
			n := utf8.RuneCountInString(word)
			switch {
			case j == 0:
			case column+1+n > proseWidth && !strings.ContainsAny(word[:1], "-+*>#|"): // these mean something where a line begins
				b.WriteString("\n" + margin)
				column = utf8.RuneCountInString(margin)
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
	}
	return b.String()
}

func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}
