package printable_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/printable"
)

// unseen are characters that are invisible, or that change the text around them.
var unseen = []rune{
	0x00, 0x07, 0x08, '\r', 0x1b, 0x7f, // C0 and DEL
	0x80, 0x85, 0x90, 0x9b, 0x9d, 0x9f, // C1
	// direction of writing
	0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069, 0x200e, 0x200f, 0x061c,
	// invisible
	0x200b, 0x200c, 0x200d, 0x2060, 0xfeff, 0x00ad, 0x034f, 0x180e, 0x115f, 0x3164, 0xffa0, 0x17b4, 0x2800, 0xfe0f, 0xe0001, 0xe0041, 0xe0100,
	0x2028, 0x2029, // separators
	0xfff9, 0xffff, 0xe000, // no characters, or private ones
}

func TestUnseenIsEscaped(t *testing.T) {
	for _, r := range unseen {
		s := "a" + string(r) + "é"
		lines, text := printable.Lines(s), printable.Text(s)
		for _, got := range []string{lines, text} {
			if strings.ContainsRune(got, r) || !strings.HasPrefix(strings.TrimPrefix(got, `"`), `a\`) {
				t.Errorf("%U is shown as %q", r, got)
			}
		}
		var decoded string
		if err := json.Unmarshal([]byte(`"`+lines+`"`), &decoded); err != nil || decoded != s {
			t.Errorf("%U: %s decodes to %q, %v", r, lines, decoded, err)
		}
		if printable.CheckName(s) == nil {
			t.Errorf("a name may have %U", r)
		}
	}
}

func TestTextIsQuotedOnlyWhereItMust(t *testing.T) {
	for text, want := range map[string]string{
		"":               "",
		"10.0.0.7":       "10.0.0.7",
		`say "no" \ été`: `say "no" \ été`,
		"日本":             "日本",
		"a\nb\tc":        `"a\nb\tc"`,
		"\x1b[2J":        `"\x1b[2J"`,
		"\x9b2J":         `"\x9b2J"`,
		"\u009b2J\ufe0f": `"\u009b2J\ufe0f"`,
		"\ufffd":         "\ufffd",
	} {
		if diff := cmp.Diff(want, printable.Text(text)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestWriter(t *testing.T) {
	var out bytes.Buffer
	w := printable.NewWriter(printable.NewWriter(&out))
	if printable.Below(w) != &out || printable.Below(&out) != &out {
		t.Error("Below isn't what is below")
	}
	text := "one\ttwo\n\u202ethree\x9b\r\n"
	if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	if diff := cmp.Diff("one\ttwo\n\\u202ethree\\x9b\\u000d\n", out.String()); diff != "" {
		t.Error(diff)
	}
}

func FuzzJSON(f *testing.F) {
	for _, r := range unseen {
		f.Add(string(r))
	}
	f.Add("\xff\\\"\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := json.Marshal(map[string]string{s: s})
		if err != nil {
			t.Fatal(err)
		}
		// JSON of other programs may have the characters without escapes.
		if raw := `{"k":"` + s + `"}`; json.Valid([]byte(raw)) {
			in = []byte(raw)
		}
		var want, got any
		if err := json.Unmarshal(in, &want); err != nil {
			t.Fatal(err)
		}
		out := printable.JSON(in)
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		for _, shown := range []string{string(out), printable.Lines(s), printable.Text(s)} {
			if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return r != '\n' && r != '\t' && !printable.Rune(r) }) {
				t.Errorf("%q is shown", shown)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for _, name := range []string{"10.0.0.7", "door 1", "Tür-4", "門", strings.Repeat("x", printable.MaxName), "fe80::1"} {
		if err := printable.CheckName(name); err != nil {
			t.Errorf("%q %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"":                       "is empty",
		strings.Repeat("x", 256): "is 256 bytes long, allowed are 255",
		" a":                     "begins or ends with a space",
		"a ":                     "begins or ends with a space",
		"a\u00a0":                "has U+00A0, which can't be printed",
		"a\n":                    "has a control character",
		"a\xff":                  "is not UTF-8",
		"a\u200b":                "has U+200B, which can't be printed",
		"Tu\u0308r":              `is not in the Unicode normal form C (NFC), in which it is "T\u00fcr"`,
		"\u212b":                 `is not in the Unicode normal form C (NFC), in which it is "\u00c5"`,
	} {
		if err := printable.CheckName([]byte(name)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", strconv.QuoteToASCII(name), err, want)
		}
	}
}
