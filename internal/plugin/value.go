package plugin

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// Substituted is a string of the tree that contains a substitution.
type Substituted struct {
	// Text is the result.
	Text string
	// Source is what the file says. Messages show it instead of Text, which may be a secret.
	Source string
	// Whole is set if the string is one substitution and nothing else. Then it may become a number
	// or a bool.
	Whole bool
	// File is set if a part of the text comes from a file. Then Text is treated as a secret.
	File bool
}

// Plain returns v without marks. A string that is one whole substitution becomes the bool or
// number that it contains, and arrays of tables become lists.
func Plain(v any) any {
	switch v := v.(type) {
	case Substituted:
		if !v.Whole {
			return v.Text
		}
		if v.Text == "true" || v.Text == "false" {
			return v.Text == "true"
		}
		// Text that isn't written like a number stays text: 0123 may be a PIN, and inf a word.
		var n json.Number
		if json.Unmarshal([]byte(v.Text), &n) != nil || n.String() != v.Text {
			return v.Text
		}
		if i, err := n.Int64(); err == nil {
			return i
		}
		if f, err := n.Float64(); err == nil {
			// A float would lose digits of some numbers, such as a long serial number.
			written, ok := jsontext.ParseDecimal(v.Text)
			if kept, _ := jsontext.ParseDecimal(strconv.FormatFloat(f, 'g', -1, 64)); ok && kept == written {
				return f
			}
		}
		return v.Text
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, e := range v {
			m[key] = Plain(e)
		}
		return m
	case []map[string]any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = Plain(e)
		}
		return list
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = Plain(e)
		}
		return list
	default:
		return v
	}
}

// textOf returns the text of v and how a message shows it.
func textOf(v any) (text, shown string, ok bool) {
	switch v := v.(type) {
	case string:
		return v, strconv.Quote(v), true
	case Substituted:
		return v.Text, "the value of " + strconv.Quote(v.Source), true
	default:
		return "", "", false
	}
}

// kindOf returns the type of v for messages.
func kindOf(v any) string {
	switch v.(type) {
	case string, Substituted:
		return "a string"
	case bool:
		return "a bool"
	case int64:
		return "an integer"
	case float64:
		return "a number"
	case time.Time:
		return "a date or time"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	default:
		return "nothing"
	}
}

// listOf returns the elements of v if it is a list.
func listOf(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case []map[string]any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = e
		}
		return list, true
	default:
		return nil, false
	}
}
