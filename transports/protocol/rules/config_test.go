package rules

import (
	"strings"
	"testing"

	"github.com/pentrough/pentrough/transports/codec/delimiter"
)

// config returns a valid configuration after a change.
func config(change func(*Config)) *Config {
	c := &Config{Framing: &delimiter.Config{Delimiter: ";", Max: 64}, Rules: []Rule{with(Rule{Match: `^(?P<device>\d+),(?P<code>\w+)`}), with(Rule{})}}
	change(c)
	return c
}

func TestWrongConfigurations(t *testing.T) {
	if err := config(func(*Config) {}).Validate(); err != nil {
		t.Fatal(err)
	}
	command := func(source string) func(*Config) { return func(c *Config) { c.Command = source } }
	first := func(r Rule) func(*Config) {
		return func(c *Config) {
			if r.Match == "" {
				r.Match = c.Rules[0].Match
			}
			c.Rules[0] = with(r)
		}
	}
	when := func(source string) func(*Config) { return first(Rule{When: source}) }
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		// The whole configuration.
		{func(c *Config) { c.Framing = nil }, "framing: is missing; it names a codec"},
		{func(c *Config) { c.Framing = &delimiter.Config{Delimiter: `\q`, Max: 1} }, `framing: delimiter: \q is not an escape`},
		{func(c *Config) { c.Rules = nil }, "rules: is missing; [{}] makes data of every frame"},
		{func(c *Config) { c.Rules = []Rule{{}, {Match: "x"}} }, "rules[1]: is never used, because rules[0] fits every frame"},
		{func(c *Config) { c.Asks = "cmd" }, "asks: no rule has answers, so no command would get its answer"},
		{first(Rule{Answers: "code"}), `rules[0].answers: needs asks, which gives the key of a command's answer; for answers without a key, write answers = '""'`},
		{first(Rule{Kind: "login"}), "rules[0].kind: the codec of framing has no kinds of frames"},
		{first(Rule{Respond: "text", RespondRaw: "text"}), "rules[0].respond_raw: can't be used together with respond"},
		{first(Rule{After: "confirmed"}), "rules[0].after: needs respond or respond_raw, which it delays"},
		{first(Rule{After: "later", Respond: "text"}), `rules[0].after: "later" is not known; allowed: confirmed`},
		{first(Rule{After: "confirmed", Respond: "text", Refuse: "text"}), "rules[0].after: can't be used together with refuse"},
		{func(c *Config) { c.Rules[1] = sign(Rule{After: "confirmed", Respond: "text"}) }, "rules[1].after: can't be used with data = false"},

		// Regular expressions.
		{first(Rule{Match: "("}), "rules[0].match: the regular expression is wrong: missing closing )"},
		{first(Rule{Match: "(a{1,1000}b{1,1000}){1}"}), "rules[0].match: the regular expression has a size of"},
		{first(Rule{Match: "(?P<size>.)"}), "rules[0].match: a group can't be named size"},
		{first(Rule{Match: "(?P<n>.)"}), "rules[0].match: a group can't be named n"},

		// The place is shown below each expression.
		{when(" "), "rules[0].when: the expression is empty"},
		{when(`u8(0) == `), "rules[0].when: unexpected token EOF\n    u8(0) == \n"},
		{when(`u8(0) = 1`), "rules[0].when: unexpected token Operator(\"=\")\n    u8(0) = 1\n          ^"},
		{when(`u8(0)`), "rules[0].when: gives a number; allowed: true or false\n    u8(0)\n    ^"},
		{when(`u8(0) == "1"`), "rules[0].when: == has a number on the left and text on the right\n    u8(0) == \"1\"\n          ^"},
		{when(`u9(0) == 1`), "rules[0].when: unknown name u9; did you mean u8?\n    u9(0) == 1\n    ^"},
		{when(`txt == "1"`), "rules[0].when: unknown name txt; did you mean text?\n    txt"},
		{when(`payload == "1"`), "rules[0].when: unknown name payload; did you mean text?"},
		{when(`xyzzy == 1`), "rules[0].when: unknown name xyzzy; allowed: the functions, and code, device, size, text, unit"},
		{when(`u8 == 1`), "rules[0].when: u8 is a function; allowed: u8(i)\n    u8"},
		{when(`size() == 1`), "rules[0].when: size isn't a function; allowed: size without parentheses"},
		{when(`u8("a") == 1`), "rules[0].when: text is in a place where u8 takes something else; allowed: u8(i)\n    u8(\"a\") == 1\n       ^"},
		{when(`u8() == 1`), "rules[0].when: u8 has the wrong number of arguments; allowed: u8(i)"},
		{when(`at(1) == ""`), "rules[0].when: at has the wrong number of arguments; allowed: at(i, n)"},
		{when(`n == 1`), "rules[0].when: n exists only in command, asks, respond and respond_raw\n    n == 1\n    ^"},
		{when(`cmd == ""`), "rules[0].when: cmd exists only in command and asks"},
		{when(`text matches "a"`), "rules[0].when: the operator matches doesn't exist here; only the key match of a rule has regular expressions\n    text matches \"a\"\n         ^"},
		{when(`u8(0) in 1..5`), "rules[0].when: in needs a list, such as x in [1, 2]"},
		{when(`"a" in text`), `rules[0].when: in needs a list, such as x in [1, 2]; for a part of a text use text contains "x"`},
		{when(`u8(0) in [1, text]`), "rules[0].when: the elements must be of the type on the left, which is a number\n    u8(0) in [1, text]\n                 ^"},
		{when(`len(1..1000000) == 1`), "rules[0].when: the operator .. doesn't exist here; use x >= 1 and x <= 5"},
		{when(`all(text, # == "a")`), "rules[0].when: all is a loop, and there are none here; use groups of match, or write a protocol in Go\n    all("},
		{when(`split(text, ",")[0] == ""`), "rules[0].when: the function split doesn't exist here; use groups of match, or write a protocol in Go\n    split("},
		{when(`repeat("a", 1000000000) == ""`), "rules[0].when: the function repeat doesn't exist here"},
		{when(`[1, 2] == [1]`), "rules[0].when: there are no lists or maps here"},
		{when(`{a: 1}.a == 1`), "rules[0].when: there are no lists or maps here"},
		{when(`text?.a == ""`), "rules[0].when: values have no fields or elements"},
		{when(`text[0] == "a"`), "rules[0].when: values have no fields or elements; allowed: u8(i), at(i, n) and text[from:to]"},
		{when(`text.upper() == "a"`), "rules[0].when: values have no methods"},
		{when(`let x = 1; x == 1`), "rules[0].when: an expression is one value; let and ; aren't allowed"},
		{when(`1.5 > 1`), "rules[0].when: only whole numbers are allowed"},
		{when(`code == nil`), `rules[0].when: there is no nil; use "" for no text`},
		{when(`u8(0) / 2 == 1`), "rules[0].when: the operator / doesn't exist here; the language gives a fraction; use bitshr(x, 3)"},
		{when(`(u8(0) ?? 1) == 1`), "rules[0].when: the operator ?? doesn't exist here"},
		{when(`-text == 1`), "rules[0].when: - needs a number and has text"},
		{when(`not size`), "rules[0].when: not needs true or false and has a number"},
		{when(`text - "a" == ""`), "rules[0].when: - can't be used with text"},
		{when(`size ? true : false`), "rules[0].when: a condition is true or false, and this is a number"},
		{when(`(true ? 1 : "a") == 1`), "rules[0].when: both results of a condition need the same type; this is text, and the first is a number"},
		{when(`size[1:] == ""`), "rules[0].when: [from:to] needs text and has a number"},
		{when(`text["a":] == ""`), "rules[0].when: [from:to] needs numbers, and this is text"},
		{when(`1 % 0 == 1`), "rules[0].when: 1 % 0 has no value"},
		{when(`crc16("crc", text) == 1`), "rules[0].when: the first argument of crc16 names the check; allowed: ccitt-false, hj212, ibm, kermit, modbus, x25, xmodem"},
		{when(`trim(text, text) == ""`), "rules[0].when: the characters of trim must be a constant"},
		{when(`times(text, text) == 1`), "rules[0].when: the second argument of times must be a constant that isn't empty"},
		{when(`utc(text) == ""`), "rules[0].when: the layout of utc must be a constant"},
		{when(strings.Repeat("(", 5000)), "rules[0].when: the expression has 5000 bytes; allowed: up to 4096"},
		{when(strings.Repeat("size+", 500) + "1 == 1"), "rules[0].when: the expression has too many parts; allowed: up to 1000"},

		{first(Rule{Device: `size`}), "rules[0].device: gives a number; allowed: text; string(x) writes a number as text, and w8(x) as a byte"},
		{first(Rule{Unit: `1 + "a"`}), "rules[0].unit: + has a number on the left and text on the right; string(x) writes a number as text"},
		{first(Rule{Type: `position`}), "rules[0].type: unknown name position"},
		{first(Rule{Refuse: `no`}), "rules[0].refuse: unknown name no"},
		{first(Rule{Respond: `w8(256)`}), "rules[0].respond: w8(256) doesn't fit; allowed: 0 to 255\n    w8(256)\n    ^"},
		{first(Rule{RespondRaw: `unhex("0g")`}), "rules[0].respond_raw: unhex needs pairs of hexadecimal digits"},
		{command(`"imei:" + imei + cmd`), "command: unknown name imei; did you mean device?\n    \"imei:\" + imei + cmd\n              ^"},
		{command(`"é" + x`), "command: unknown name x; allowed: the functions, and cmd, device, id, n, size, text, unit\n    \"é\" + x\n          ^"},
		{command(`w8(n)`), "command: n goes up to 65535 and doesn't fit; allowed: w16(n), or w8(n % 256)"},
		{command(`code`), "command: unknown name code"},
	} {
		if err := config(c.change).Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; want %s", err, c.want)
		}
		if p, err := config(c.change).Protocol(); err == nil || p != nil {
			t.Errorf("a protocol is built in spite of: %s", c.want)
		}
	}
	err := config(func(c *Config) { c.Command, c.Asks, c.Rules[1] = "x", "y", with(Rule{When: "z"}) }).Validate()
	for _, want := range []string{"command: ", "asks: ", "rules[1].when: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v says nothing of %s", err, want)
		}
	}
}
