package plugin

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Page is the documentation of one plugin, for a browser or a terminal.
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

// row is a setting with its dotted key. The settings of a nested table come after the table.
type row struct {
	key   string
	field Field
}

func flattenFields(prefix string, fields []Field) []row {
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
		all = append(all, flattenFields(key, inner.Fields)...)
	}
	return all
}

// defaultText returns the default of a setting, or that it is required.
func (f Field) defaultText() string {
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

// boundsText returns which values are allowed.
func (f Field) boundsText() string {
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

// fullText returns the setting's sentence with the allowed values and an example.
func (f Field) fullText(code string) string {
	text := strings.TrimSpace(f.Doc)
	bounds := f.boundsText()
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
	if f.Example != "" && f.Example != f.defaultText() {
		text += " Example: " + code + f.Example + code + "."
	}
	return strings.TrimSpace(text)
}

// Markdown renders the page.
func (p Page) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s %s\n\n%s\n", p.Kind, p.Name, wrap(endSentence(p.Summary), ""))
	if d := strings.TrimSpace(p.Description); d != "" {
		fmt.Fprintf(&b, "\n%s\n", wrap(d, ""))
	}
	fmt.Fprintf(&b, "\n## Settings\n\n")
	if len(p.Fields) == 0 {
		b.WriteString("There are none.\n")
		return b.String()
	}
	b.WriteString("| key | type | default | |\n| --- | --- | --- | --- |\n")
	for _, r := range flattenFields("", p.Fields) {
		value := r.field.defaultText()
		if value != "" && !r.field.Required {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.key, escapeCell(r.field.Type.Word()), escapeCell(value), escapeCell(r.field.fullText("`")))
	}
	return b.String()
}

// escapeCell escapes a text for a table cell.
func escapeCell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}

// Text renders the page for a terminal.
func (p Page) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", wrap(p.Kind+" "+p.Name+": "+endSentence(p.Summary), ""))
	if d := strings.TrimSpace(p.Description); d != "" {
		fmt.Fprintf(&b, "\n%s\n", wrap(d, ""))
	}
	if len(p.Fields) == 0 {
		b.WriteString("\nThere are no settings.\n")
		return b.String()
	}
	b.WriteString("\nSettings:\n")
	for _, r := range flattenFields("", p.Fields) {
		fmt.Fprintf(&b, "\n  %s  %s", r.key, r.field.Type.Word())
		if value := r.field.defaultText(); r.field.Required {
			b.WriteString(", required")
		} else if value != "" {
			fmt.Fprintf(&b, ", default %s", value)
		}
		if about := r.field.fullText(""); about != "" {
			fmt.Fprintf(&b, "\n%s", wrap(about, "      "))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// proseWidth is the greatest width of a line of prose, in columns.
const proseWidth = 99

// wrap breaks the prose of a Markdown text into lines of at most proseWidth columns. It puts the
// indent before each line. Tables and code stay as they are. The lines of a list item begin below
// its text.
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
			// Markdown gives these characters a meaning at the beginning of a line
			case column+1+n > proseWidth && !strings.ContainsAny(word[:1], "-+*>#|"):
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

func endSentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}
