package expression

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/spelling"
)

// foreign has names of other languages, with what to write instead.
var foreign = map[string]string{
	"length": "len", "size": "len", "strlen": "len", "substr": "text[0:5]", "substring": "text[0:5]", "slice": "text[0:5]",
	"toUpper": "upper", "toLower": "lower", "uppercase": "upper", "lowercase": "lower", "toString": "string", "str": "string",
	"toInt": "int", "parseInt": "int", "toFloat": "float", "parseFloat": "float", "number": "float",
	"includes": `text contains "x"`, "match": `text matches "x"`, "regexp": `text matches "x"`, "test": `text matches "x"`,
	"some": "any", "every": "all", "each": "map", "select": "filter", "where": "filter", "fold": "reduce", "distinct": "uniq", "unique": "uniq",
	"avg": "mean", "average": "mean", "parse": "fromJSON", "stringify": "toJSON", "base64": "toBase64", "if": "x ? y : z",
	"payload": "text", "body": "text", "metadata": "meta", "headers": "meta", "message": "json", "msg": "json", "data": "json", "this": "json",
	"null": "nil", "None": "nil", "undefined": "nil", "True": "true", "False": "false",
	"defined": "json.x != nil", "exists": "json.x != nil", "has": `"x" in json`, "coalesce": "x ?? y", "default": "x ?? y",
	"sprintf": `"a" + string(b)`, "format": `"a" + string(b)`, "time": "now", "today": "now", "timestamp": "now",
}

// suggestName returns a hint with the name that was probably meant by an unknown one.
func suggestName(name string) string {
	meant := foreign[name]
	if meant == "" {
		meant = spelling.Nearest(name, slices.Concat(slices.Sorted(maps.Keys(variables)), slices.Sorted(maps.Keys(functions)), slices.Sorted(maps.Keys(builtins))))
	}
	if meant == "" {
		return ""
	}
	return "; did you mean " + meant + "?"
}

var (
	operatorToken  = regexp.MustCompile(`^unexpected token Operator\("([a-zA-Z]+)"\)$`)
	elementToken   = regexp.MustCompile(`^unexpected token Operator\("[#.]"\)$`)
	nameAtTheEnd   = regexp.MustCompile(`[a-zA-Z_]\w*$`)
	callAtTheStart = regexp.MustCompile(`^\w+\s*\(`)
)

// explain adds what the author probably meant to an error of the language's parser or checker.
func explain(e *Error) {
	if name, ok := strings.CutPrefix(e.Message, "unknown name "); ok {
		e.Message += suggestName(name)
		return
	}
	if found := operatorToken.FindStringSubmatch(e.Message); found != nil && callAtTheStart.MatchString(e.Source[e.Offset:]) {
		e.Message = found[1] + " is an operator; allowed: text " + found[1] + ` "x"`
		return
	}
	// Only functions of the language may have # and .x in their arguments. In an unknown function
	// the parser stops there, before it reports the name.
	if !elementToken.MatchString(e.Message) {
		return
	}
	if at, name := findOpenCall(e.Source[:e.Offset]); name != "" && !isFunction(name) {
		e.Offset, e.Message = at, "unknown name "+name+suggestName(name)
	}
}

// findOpenCall returns the name and place of the function whose parenthesis is open at the end of
// a text.
func findOpenCall(text string) (at int, name string) {
	depth := 0
	for i := len(text) - 1; i >= 0; i-- {
		switch text[i] {
		case ')':
			depth++
		case '(':
			if depth--; depth >= 0 {
				continue
			}
			if name = nameAtTheEnd.FindString(text[:i]); name != "" {
				return i - len(name), name
			}
			depth = 0
		}
	}
	return 0, ""
}

func isFunction(name string) bool {
	_, own := functions[name]
	_, language := builtins[name]
	return own || language
}
