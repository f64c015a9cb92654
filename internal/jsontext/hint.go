package jsontext

import (
	"regexp"
	"strings"
)

// hinted is how many bytes on both sides of an error are looked at.
const hinted = 200

// beginnings are the first bytes of texts that are often sent by mistake, each with a hint.
var beginnings = []struct{ bytes, hint string }{
	{"\xef\xbb\xbf", "the text begins with a byte order mark (UTF-8 BOM), leave it out"},
	{"\xff\xfe", "the text is UTF-16, allowed: UTF-8"},
	{"\xfe\xff", "the text is UTF-16, allowed: UTF-8"},
	{"\x00\x00\xfe\xff", "the text is UTF-32, allowed: UTF-8"},
	{"\x1f\x8b", "the text is compressed with gzip and its content encoding doesn't say so"},
	{"\x78\x01", zlib}, {"\x78\x5e", zlib}, {"\x78\x9c", zlib}, {"\x78\xda", zlib},
	{"\x28\xb5\x2f\xfd", "the text is compressed with zstd, allowed: gzip, or no compression"},
	{"PK\x03\x04", "the text is a zip file"},
	{"<", "the text is HTML or XML"},
	{"eyJ", "the text looks like JSON in base64"},
	{"---", "the text looks like YAML"},
}

const zlib = "the text is compressed with zlib (deflate), allowed: gzip, or no compression"

// instead has words and signs of other languages, each with a hint about what JSON has in its
// place.
var instead = []struct{ word, hint string }{
	{"'", "strings are in double quotes"},
	{"“", "typographic quotes, strings are in \""}, {"”", "typographic quotes, strings are in \""}, {"„", "typographic quotes, strings are in \""},
	{"`", "strings are in double quotes"},
	{"NaN", "NaN is no number in JSON, send null"}, {"nan", "nan is no number in JSON, send null"},
	{"Infinity", "infinity is no number in JSON, send null"}, {"-Infinity", "infinity is no number in JSON, send null"}, {"inf", "infinity is no number in JSON, send null"}, {"-inf", "infinity is no number in JSON, send null"},
	{"None", "None is null in JSON"}, {"nil", "nil is null in JSON"}, {"undefined", "undefined is no value in JSON, send null"},
	{"True", "True is true in JSON"}, {"False", "False is false in JSON"},
	{"//", "JSON has no comments"}, {"/*", "JSON has no comments"}, {"#", "JSON has no comments"},
	{"+", "a number has no plus sign"}, {".", "a number has a digit before its point"},
}

// form is what HTML forms and many clients of HTTP send by default.
var form = regexp.MustCompile(`^[\w.%+\-\[\]]+=[^\s{}"]*(&|$)`)

// hint says what a text that isn't JSON probably is. If it can't say, it returns "". before is the
// text before the error, and rest the text from the error on. expected is what JSON allows at the
// place of the error. hint looks only at a few bytes on both sides of the error.
func hint(before, rest, expected string) string {
	before = strings.TrimRight(before, " \t\r\n")
	if before == "" {
		if text := whole(rest, expected); text != "" {
			return text
		}
	}
	if expected == theEnd {
		if strings.HasPrefix(rest, "{") || strings.HasPrefix(rest, "[") {
			return "another value follows, a text has one"
		}
		return ""
	}
	if strings.HasSuffix(before, ",") && (strings.HasPrefix(rest, "}") || strings.HasPrefix(rest, "]")) {
		return "no comma follows the last element"
	}
	if strings.HasPrefix(rest, "\x00") && len(before) == 1 {
		return "the text is UTF-16, allowed: UTF-8"
	}
	if expected == noControl {
		return `a line break is \n, another control character \u and four digits`
	}
	for _, other := range instead {
		if strings.HasPrefix(rest, other.word) {
			return other.hint
		}
	}
	return ""
}

// whole says what a text probably is if no part of it is JSON. If it can't say, it returns "".
func whole(text, expected string) string {
	if text == "" {
		return "the text is empty"
	}
	for _, b := range beginnings {
		if strings.HasPrefix(text, b.bytes) {
			return b.hint
		}
	}
	switch {
	case len(text) > 1 && text[0] == 0 && text[1] != 0:
		return "the text is UTF-16, allowed: UTF-8"
	case form.MatchString(text):
		return "the text looks like a form (application/x-www-form-urlencoded), send JSON"
	case expected == anObject && text[0] == '"' && strings.Contains(text, "{"):
		return "the text is JSON within a string, as if it was encoded twice"
	case strings.IndexFunc(text, isControl) >= 0:
		return "the text is binary"
	}
	return ""
}

func isControl(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\r\n", r) }
