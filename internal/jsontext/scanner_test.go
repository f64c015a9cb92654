package jsontext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// walk returns what a scanner makes of a text that it passes over, held in either type.
func walk[T Text](text T) (Token[T], error, error) {
	s := New(text)
	v := s.Value()
	return v, s.End(), s.Flaw()
}

// What is sent by mistake is called by its name, whether a value or an object is expected.
func TestHints(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "the text is empty",
		" \r\n":                          "the text is empty",
		"\ufeff{}":                       "byte order mark (UTF-8 BOM)",
		"\xff\xfe{\x00}\x00":             "UTF-16",
		"\xfe\xff\x00{\x00}":             "UTF-16",
		"{\x00\"\x00a\x00":               "UTF-16",
		"\x00{\x00\"":                    "UTF-16",
		"\x1f\x8b\x08\x00\x00":           "compressed with gzip and its content encoding doesn't say so",
		"\x78\x9c\xab\x56":               "compressed with zlib",
		"\x28\xb5\x2f\xfd\x04":           "compressed with zstd",
		"PK\x03\x04\x14":                 "zip",
		"\x82\xa3cmd\xa4open":            "",
		"\x08\x96\x01":                   "binary",
		"<!doctype html>":                "HTML or XML",
		"<html>":                         "HTML or XML",
		"<?xml version=":                 "HTML or XML",
		"cmd=open":                       "looks like a form",
		"cmd=open&device=192.0.2.7":      "looks like a form",
		"a%5B0%5D=1&b=":                  "looks like a form",
		"a = b":                          "",
		"open":                           "",
		"eyJjbWQiOiJvcGVuIn0=":           "JSON in base64",
		"---\ncmd: open":                 "YAML",
		"{'cmd': 'open'}":                "strings are in double quotes",
		`{"cmd": 'open'}`:                "strings are in double quotes",
		"{“cmd”: 1}":                     "typographic quotes",
		`{"cmd": None}`:                  "None is null in JSON",
		`{"ok": True}`:                   "True is true in JSON",
		`{"ok": False}`:                  "False is false in JSON",
		`{"t": NaN}`:                     "NaN is no number in JSON",
		`{"t": -Infinity}`:               "infinity is no number in JSON",
		`{"t": Infinity}`:                "infinity is no number in JSON",
		`{"t": nan}`:                     "nan is no number in JSON",
		`{"t": undefined}`:               "undefined is no value in JSON",
		`{"t": +1}`:                      "no plus sign",
		`{"t": .5}`:                      "a digit before its point",
		`{"a": 1, // one`:                "JSON has no comments",
		`{"a": 1,}`:                      "no comma follows the last element",
		"[1,\n]":                         "no comma follows the last element",
		"{\"a\": \"x\ny\"}":              `a line break is \n`,
		`{"a":1}{"a":2}`:                 "another value follows",
		`"{\"cmd\":\"open\"}"`:           "encoded twice",
		strings.Repeat(" ", 300) + "<a>": "HTML or XML",
	} {
		s := New(text)
		for s.Begin('{'); s.Next(); {
			s.Value()
		}
		err := s.End()
		if text == "[1,\n]" {
			_, err, _ = walk(text)
		}
		if _, got, _ := strings.Cut(fmt.Sprint(err), " ("); err == nil || !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%.40q: %v, want the hint %q", text, err, want)
		}
	}
}

func TestTextsThatAreNotJSON(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	for text, want := range map[string]string{
		"":                                 "byte 1: the end; expected: a value",
		" \n":                              "byte 3: the end; expected: a value",
		"open":                             "byte 1: 'o'; expected: a value",
		"\ufeff{}":                         `byte 1: '\ufeff'; expected: a value`,
		"\xff":                             "byte 1: 0xff; expected: a value",
		"\x00":                             `byte 1: '\x00'; expected: a value`,
		"tru":                              "byte 1: 't'; expected: true",
		"nul":                              "byte 1: 'n'; expected: null",
		"falsE":                            "byte 1: 'f'; expected: false",
		"01":                               "byte 2: '1'; expected: the end",
		"-":                                "byte 2: the end; expected: a digit",
		"1.":                               "byte 3: the end; expected: a digit",
		"1e+":                              "byte 4: the end; expected: a digit",
		"+1":                               "byte 1: '+'; expected: a value",
		".5":                               "byte 1: '.'; expected: a value",
		"NaN":                              "byte 1: 'N'; expected: a value",
		"{} {}":                            "byte 4: '{'; expected: the end",
		"[1,]":                             "byte 4: ']'; expected: a value",
		"[1 2]":                            `byte 4: '2'; expected: "," or "]"`,
		"[1}":                              `byte 3: '}'; expected: "," or "]"`,
		"[,1]":                             "byte 2: ','; expected: a value",
		`{"a":1,}`:                         "byte 8: '}'; expected: a key in quotes",
		`{"a":1 "b":2}`:                    `byte 8: '"'; expected: "," or "}"`,
		`{"a"}`:                            `byte 5: '}'; expected: ":"`,
		`{"a":}`:                           "byte 6: '}'; expected: a value",
		`{a:1}`:                            "byte 2: 'a'; expected: a key in quotes",
		`{'a':1}`:                          `byte 2: '\''; expected: a key in quotes`,
		`{"a":[1,{"b":`:                    "byte 14: the end; expected: a value",
		`"a`:                               "byte 3: the end; expected: the end of the string",
		"\"a\nb\"":                         `byte 3: '\n'; expected: no control character in a string`,
		"\"12345678\x1f\"":                 `byte 10: '\x1f'; expected: no control character in a string`,
		`"\x41"`:                           `byte 3: 'x'; expected: one of "\/bfnrtu after \`,
		`"\`:                               "byte 3: the end; expected: an escape",
		`"\u12g4"`:                         "byte 6: 'g'; expected: four hex digits",
		`"\u00`:                            "byte 6: the end; expected: four hex digits",
		"[" + deep + "]":                   "byte 501: nested too deep; allowed: 500 levels",
		strings.Repeat(`{"a":`, 1_000_000): "byte 2501: nested too deep; allowed: 500 levels",
	} {
		_, err, _ := walk(text)
		if got, _, _ := strings.Cut(fmt.Sprint(err), " ("); got != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
		if _, again, _ := walk([]byte(text)); err == nil || again == nil || again.Error() != err.Error() {
			t.Errorf("%.40q: %v as bytes, %v as a string", text, again, err)
		}
		var v any
		if got := Unmarshal(text, &v); got == nil || v != nil {
			t.Errorf("%.40q: unmarshalled as %v", text, v)
		}
		if err == nil || len(err.Error()) > 160 {
			t.Errorf("%.40q: a long error: %v", text, err)
		}
	}
	if _, err, flaw := walk(deep); err != nil || flaw != nil {
		t.Error(err, flaw)
	}
}

func TestStrings(t *testing.T) {
	for raw, want := range map[string]string{
		`""`: "", `"abc"`: "abc", `"a longer text than eight bytes"`: "a longer text than eight bytes", `"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t",
		`"\u0000\u00fc\uFFFD"`: "\x00ü\ufffd", `"\ud83d\ude00"`: "😀", `"x\uD83D\uDE00y"`: "x😀y", `"ü€😀"`: "ü€😀", "\"\ufffd\"": "\ufffd",
		"\"\x7f\u2028\"": "\x7f\u2028", `"1234567\""`: `1234567"`, `"12345678\\12345678é"`: `12345678\12345678é`,
	} {
		token, err, flaw := walk(raw)
		text, textErr := token.Text()
		if err != nil || flaw != nil || textErr != nil || text != want || token.Raw != raw || token.Kind != '"' {
			t.Errorf("%s: %q of %+v, %v, %v, %v", raw, text, token, err, flaw, textErr)
		}
		written := AppendString(nil, want)
		if back, err, flaw := walk(written); err != nil || flaw != nil {
			t.Errorf("%s is written as %s: %v, %v", raw, written, err, flaw)
		} else if text, _ := back.Text(); string(text) != want {
			t.Errorf("%s is written as %s", raw, written)
		}
	}
}

// A string that can't be text is an error wherever it is, whether it is read or passed over, and
// in no way another string.
func TestStringsThatCannotBeText(t *testing.T) {
	for raw, c := range map[string]struct {
		err error
		at  string
	}{
		`"\ud800"`:                 {ErrSurrogate, "byte 2: "},
		`"\udc00"`:                 {ErrSurrogate, "byte 2: "},
		`"ab\ud800"`:               {ErrSurrogate, "byte 4: "},
		`"\ud800\u0041"`:           {ErrSurrogate, "byte 2: "},
		`"\ud800\ud800\udc00"`:     {ErrSurrogate, "byte 2: "},
		`"\udc00\ud800"`:           {ErrSurrogate, "byte 2: "},
		`"\ud83d\\ude00"`:          {ErrSurrogate, "byte 2: "},
		`"\ud83d\n"`:               {ErrSurrogate, "byte 2: "},
		"\"\xff\"":                 {ErrUTF8, "byte 2: "},
		"\"a \xc3 text\"":          {ErrUTF8, "byte 4: "},
		"\"\ufffd\xed\xa0\x80\"":   {ErrUTF8, "byte 5: "}, // a surrogate in CESU-8
		"\"\xc0\x80\"":             {ErrUTF8, "byte 2: "},
		"\"123456781234567\xe2\"":  {ErrUTF8, "byte 17: "},
		"\"long enough \\n \xff\"": {ErrUTF8, "byte 17: "},
	} {
		want := c.at + "the string " + c.err.Error()
		token, err, flaw := walk(raw)
		if err != nil || !errors.Is(flaw, c.err) || flaw.Error() != want {
			t.Errorf("%q: %v, %v, want %s", raw, err, flaw, want)
		}
		if text, err := token.Text(); !errors.Is(err, c.err) || text != "" || token.Raw != raw {
			t.Errorf("%q: text %q, %v", raw, text, err)
		}
		for _, text := range []string{`[1,` + raw + `]`, `{"a":{"b":[` + raw + `]}}`, `{` + raw + `:1}`} {
			if _, err, flaw := walk(text); err != nil || !errors.Is(flaw, c.err) {
				t.Errorf("%q: %v, %v", text, err, flaw)
			}
			if _, _, err := Find(text, []string{"x"}); !errors.Is(err, c.err) {
				t.Errorf("%q: found, %v", text, err)
			}
			var v any
			if err := Unmarshal(text, &v); !errors.Is(err, c.err) || v != nil {
				t.Errorf("%q: unmarshalled as %v, %v", text, v, err)
			}
		}
	}
}

func TestAppendStringReplacesWhatIsNotUTF8(t *testing.T) {
	if got := string(AppendString(nil, "a\"\xff\xfe \x01é")); got != `"a\"`+"\ufffd"+` \u0001é"` {
		t.Error(got)
	}
}

// Numbers stay as they were written.
func TestNumbers(t *testing.T) {
	for _, text := range []string{"0", "-0", "1.0", "12345678901234567890", "1e400", "-1E-400", "0.10", "1.5e+3", "9007199254740993"} {
		token, err, _ := walk(text)
		if err != nil || token.Raw != text || token.Kind != '0' {
			t.Errorf("%s: %+v, %v", text, token, err)
		}
		if token, found, err := Find(`{"a":{"b": `+text+` }}`, []string{"a", "b"}); err != nil || found != 2 || token.Raw != text {
			t.Errorf("%s: found %+v, %v", text, token, err)
		}
		var v any
		if err := Unmarshal(text, &v); err != nil || v != json.Number(text) {
			t.Errorf("%s: unmarshalled as %v, %v", text, v, err)
		}
	}
}

func TestWalk(t *testing.T) {
	var got []string
	s := New([]byte(` {"a" : [ 1 , "x" , {"b":null}, [] ] , "\u0063":{"d":{"e":[true]}},"f":false } `))
	for s.Begin('{'); s.Next(); {
		name := string(s.Key())
		if s.Peek() != '[' {
			v := s.Value()
			got = append(got, string(s.Key())+"="+string(v.Kind)+string(v.Raw))
			continue
		}
		for s.Begin('['); s.Next(); {
			kind := s.Peek()
			v := s.Value()
			if v.Kind != kind {
				t.Errorf("%s is %c and then %c", v.Raw, kind, v.Kind)
			}
			got = append(got, name+":"+string(v.Raw))
		}
	}
	if err := s.Finish(); err != nil {
		t.Error(err)
	}
	want := []string{"a:1", `a:"x"`, `a:{"b":null}`, "a:[]", `c={{"d":{"e":[true]}}`, "f=ffalse"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{`[]`: "expected: an object", `{"a":1}`: "expected: a string", `{"a":"x"`: `expected: "," or "}"`} {
		s := New(text)
		for s.Begin('{'); s.Next(); {
			s.Str()
		}
		if err := s.Finish(); err == nil || !strings.HasSuffix(err.Error(), want) || !errors.Is(s.Err(), err) || s.Peek() != 0 || s.Next() {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	list := New(`{}`)
	if list.Begin('['); list.Err() == nil || list.Err().Error() != "byte 1: '{'; expected: an array" {
		t.Error(list.Err())
	}
}

func TestFind(t *testing.T) {
	const text = `{"a":{"b":1,"b":{"c":"x"}},"d":null,"\u0065":[{"f":1}]}`
	for _, c := range []struct {
		path, raw string
		found     int
	}{
		{"", text, 0}, {"a.b.c", `"x"`, 3}, {"a.b", `{"c":"x"}`, 2}, {"d", "null", 1}, {"e", `[{"f":1}]`, 1}, {"a.x.y", "", 1}, {"d.x", "", 1}, {"e.f", "", 1}, {"A", "", 0},
	} {
		var path []string
		if c.path != "" {
			path = strings.Split(c.path, ".")
		}
		if v, found, err := Find(text, path); v.Raw != c.raw || found != c.found || err != nil {
			t.Errorf("%s: %s, %d, %v", c.path, v.Raw, found, err)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	text := []byte(`{"id":"0b0d3f0e-1d6e-4a5c-9f6b","list":[1,{"ü":[true,null,-1.5e7]}],"é":"` + strings.Repeat("ä", 100) + `"}`)
	if n := testing.AllocsPerRun(100, func() {
		s := New(text)
		for s.Begin('{'); s.Next(); {
			s.Key()
			if s.Peek() == '"' {
				s.Str()
			} else {
				s.Value()
			}
		}
		if s.Finish() != nil {
			t.Error(s.Err())
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	asString := string(text)
	if n := testing.AllocsPerRun(100, func() { _, _, _ = walk(asString) }); n != 0 {
		t.Errorf("%v allocations for a string", n)
	}
}

// rebuild walks into every array and object, and writes the text again without white space. It is
// another way through the scanner than Value's.
func rebuild[T Text](s *Scanner[T], out []byte) []byte {
	switch kind := s.Peek(); kind {
	case '{', '[':
		out = append(out, kind)
		begun := len(out)
		for s.Begin(kind); s.Next(); {
			if len(out) > begun {
				out = append(out, ',')
			}
			if kind == '{' {
				out = append(append(out, s.Name.Raw...), ':')
			}
			out = rebuild(s, out)
		}
		return append(out, kind+2) // "{}" and "[]" are that far apart
	default:
		return append(out, s.Value().Raw...)
	}
}

// FuzzScanner compares the scanner with encoding/json: both take the same texts, apart from the
// rules of this package, and find the same in them. It also compares the scanner with itself,
// over a string and over bytes, and passing over values and walking into them.
func FuzzScanner(f *testing.F) {
	for _, text := range []string{
		`{"a":[1,-0.5e+7,true,null,{"b":[[]]},{}],"\u0063":"\ud83d\ude00\/\b"}`, ` [01]`, `"\ud800x"`, `"\udc00\ud800"`, "\"\xff\"", "\xff", `{"a":1,"a":2}`, `{"a" "b"}`, `[1,]`, `nul`, `-`, `1e400`,
		`12345678901234567890`, `1.0`, `"\`, `"\u12g4"`, "\"\x1f\"", `{"a":1}{}`, strings.Repeat("[", 501) + strings.Repeat("]", 501), "\"12345678\x80234567\\n\"", "\"\u2028\x7f\"", "\x00",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		token, err, flaw := walk(text)
		if _, again, flawAgain := walk(string(text)); (again == nil) != (err == nil) || again != nil && again.Error() != err.Error() || (flaw == nil) != (flawAgain == nil) {
			t.Fatalf("%q: %v %v as bytes, %v %v as a string", text, err, flaw, again, flawAgain)
		}
		s := New(text)
		compact := rebuild(&s, nil)
		if into := s.End(); (into == nil) != (err == nil) || into != nil && into.Error() != err.Error() || (s.Flaw() == nil) != (flaw == nil) {
			t.Fatalf("%q: %v %v if it is passed over, %v %v if it is walked into", text, err, flaw, into, s.Flaw())
		}
		if !bytes.Equal(text, before) {
			t.Fatal("the text changed")
		}
		valid := json.Valid(text)
		if err != nil {
			if valid && !strings.Contains(err.Error(), "too deep") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if !valid {
			t.Fatalf("%q is taken", text)
		}
		if want := bytes.Trim(text, " \t\r\n"); !bytes.Equal(token.Raw, want) {
			t.Fatalf("%q: raw %q", text, token.Raw)
		}
		var theirs bytes.Buffer
		if err := json.Compact(&theirs, text); err != nil || !bytes.Equal(theirs.Bytes(), compact) {
			t.Fatalf("%q: %q, encoding/json %q, %v", text, compact, theirs.Bytes(), err)
		}
		// encoding/json puts U+FFFD for what can't be text, and there alone it differs.
		if utf8.Valid(text) == errors.Is(flaw, ErrUTF8) && !errors.Is(flaw, ErrSurrogate) {
			t.Fatalf("%q: %v", text, flaw)
		}
		if token.Kind != '"' {
			return
		}
		var want string
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		got, err := token.Text()
		switch {
		case err == nil && string(got) != want:
			t.Fatalf("%q: %q, encoding/json %q", text, got, want)
		case err != nil && !strings.Contains(want, "\ufffd"):
			t.Fatalf("%q: %v, encoding/json %q", text, err, want)
		case err == nil:
			if back, err, flaw := walk(AppendString(nil, want)); err != nil || flaw != nil {
				t.Fatalf("%q is written as %s: %v, %v", want, back.Raw, err, flaw)
			} else if again, _ := back.Text(); string(again) != want {
				t.Fatalf("%q is written as %s", want, back.Raw)
			}
		}
	})
}

// BenchmarkValue passes over texts, with encoding/json as the peer.
func BenchmarkValue(b *testing.B) {
	for name, text := range map[string]string{
		"command": `{"id":"0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11","address":"127.3.4.5","cmd":"SET relay 4 on","ttl":"30s"}`,
		"numbers": "[" + strings.Repeat(`{"value":-12.5e3,"ok":true},`, 400) + "0]",
		"text":    `{"cmd":"` + strings.Repeat("SET relay 4 on, ", 640) + `"}`,
	} {
		data := []byte(text)
		b.Run(name+"/scanner", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err, flaw := walk(data); err != nil || flaw != nil {
					b.Fatal(err, flaw)
				}
			}
		})
		b.Run(name+"/encoding-json", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if !json.Valid(data) {
					b.Fatal("not JSON")
				}
			}
		})
	}
}
