package pattern

import (
	"regexp/syntax"
	"strings"
	"testing"
)

// The size is at least the number of instructions of the program. A match may run each of them for
// each byte.
func TestSize(t *testing.T) {
	for _, text := range []string{
		``, `a`, `abc`, `(?i)abc`, `a*`, `a+b?`, `a{3}`, `a{3,}`, `a{0,100}`, `(?:ab|cd|ef)+`, `^HELLO (\S+)`, `[0-9A-F]{32}`, `\pL{30}`,
		`((a{0,10}){0,10}){0,10}`, `(((a{2}){2}){2}){2}`, `(?s).*x.*`, `a|b|c|d`, `\bword\b`, `^$`, `(a*)*`, `^.{1,1000}$`,
	} {
		_, size, err := Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		parsed, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		program, err := syntax.Compile(parsed.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		// Two of the program's instructions are `fail` and `match`.
		if n := len(program.Inst) - 2; size < n || size > 3*n+3 {
			t.Errorf("%s has the size %d; its program has %d instructions", text, size, n)
		}
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		`(`:                              "the regular expression is wrong: missing closing )",
		`a{2,1}`:                         "invalid repeat count: `{2,1}`",
		`((a{1000}){1000})`:              "invalid repeat count",
		`(((a{0,9}){0,9}){0,9}){0,9}`:    "invalid repeat count",
		`(((abcde){0,10}){0,10}){0,10}`:  "counted repetitions multiply the size of their content; allowed: up to 3000",
		`(a{1,1000}b{1,1000})`:           "allowed: up to 3000",
		`((\pL{0,31}){0,31})`:            "allowed: up to 3000",
		strings.Repeat("a", MaxSize+1):   "allowed: up to 3000",
		strings.Repeat(`(a{0,999})`, 99): "allowed: up to 3000",
		`\8`:                             "invalid escape sequence",
		"\xff":                           "invalid UTF-8",
	} {
		if _, _, err := Compile(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %s", text, err, want)
		}
	}
}
