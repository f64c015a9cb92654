package expression

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/jsontext"
)

func TestReads(t *testing.T) {
	text := `{"a":{"b":1,"c":{"d":2}},"x":[{"id":1,"n":2},{"id":3}],"y":5}`
	for want, sources := range map[string][]string{
		`{"a":{"b":1}}`:                         {`json.a.b`},
		`{"a":{"b":1},"y":5}`:                   {`json.a.b + json.y`, `json?.a?.b > json["y"]`},
		`{"a":{"b":1,"c":{"d":2}}}`:             {`json.a`, `json.a.b == 1 or json.a != nil`, `let x = json.a; x.b`, `keys(json.a)`, `json.a[meta.type]`},
		`{"x":[{"id":1},{"id":3}]}`:             {`json.x[0].id`, `json.x[1].id > 2`},
		`{"x":[{"id":1,"n":2},{"id":3}]}`:       {`any(json.x, .id > 1)`, `json.x[-1].id`},
		`{"x":[{"id":1,"n":2},{"id":3}],"y":5}`: {`json.x[json.y].id`},
		text:                                    {`json`, `json.y + len(json)`, `"y" in json`, `json[meta.type]`},
		`{}`:                                    {`json.absent`},
		`null`:                                  {`text`},
	} {
		for _, source := range sources {
			e := environment()
			if _, err := e.Compile(source, Body); err != nil {
				t.Fatal(err)
			}
			reads := &e.reads
			if want == "null" && reads.keys == nil && !reads.all {
				continue
			}
			got, err := input(environment(), "").decode(text, reads)
			if err != nil {
				t.Fatal(err)
			}
			var wanted any
			if err := json.Unmarshal([]byte(want), &wanted); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wanted, floats(got)); diff != "" {
				t.Errorf("%s: %s", source, diff)
			}
		}
	}
}

// floats returns a value that decode returned as encoding/json returns it.
func floats(v any) any {
	switch v := v.(type) {
	case int:
		return float64(v)
	case json.Number:
		f, _ := v.Float64()
		return f
	case map[string]any:
		for key := range v {
			v[key] = floats(v[key])
		}
	case []any:
		for i := range v {
			v[i] = floats(v[i])
		}
	}
	return v
}

// FuzzDecode compares the decoder with encoding/json. It accepts the same texts, apart from deep
// nesting and strings that aren't text. It returns the same values, also if only a part is wanted.
// A value that it writes is read as the same value.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		payload, ` [1 , -0, 0.5e+3,-1E-2, 9223372036854775808, 1e999]`, `"\ud83d\ude00\ud800x\ud800\u0041\/\b"`, `{"a":1,"a":{"b":[]}}`, `[01]`, `{"a":}`, `"` + "\x1f" + `"`, `[1,]`, `nul`, `-`, "\xff",
		`{"":{"":null}}`, `"\u12g4"`, `tru`, `1.`, `1e`, `{"a" "b"}`, `"\`, strings.Repeat("[", 600),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in := input(environment(), "")
		got, err := in.decode(text, &reads{all: true})
		if _, skipErr := input(environment(), "").decode(text, nil); (skipErr == nil) != (err == nil) {
			t.Errorf("%q: %v if it is skipped, else %v", text, skipErr, err)
		}
		part := &reads{keys: map[string]*reads{"a": {keys: map[string]*reads{"b": {all: true}}}}}
		less, partErr := input(environment(), "").decode(text, part)
		if (partErr == nil) != (err == nil) {
			t.Errorf("%q: %v in part, else %v", text, partErr, err)
		}
		var want any
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		valid := json.Valid([]byte(text))
		if err != nil {
			if valid && !errors.Is(err, jsontext.ErrUTF8) && !errors.Is(err, jsontext.ErrSurrogate) && !strings.Contains(err.Error(), "too deep") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !valid {
			t.Fatalf("%q is not JSON, and gives %v", text, got)
		}
		if err := dec.Decode(&want); err != nil {
			t.Fatal(err)
		}
		out, err := in.encode(got)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := input(environment(), "").decode(string(out), &reads{all: true})
		if err != nil {
			t.Errorf("%q is written as %s: %v", text, out, err)
		}
		if m, ok := got.(map[string]any); ok {
			if a, ok := m["a"].(map[string]any); ok {
				b := less.(map[string]any)["a"].(map[string]any)
				if !reflect.DeepEqual(a["b"], b["b"]) {
					t.Errorf("%q: in part %v", text, less)
				}
			}
		}
		got = floats(got)
		if diff := cmp.Diff(floats(want), got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
		if diff := cmp.Diff(got, floats(again)); diff != "" {
			t.Errorf("%q is written as %s: %s", text, out, diff)
		}
	})
}

// Numbers keep their text when they are written again, whatever the expression computes.
func TestNumbersStayAsTheyWereWritten(t *testing.T) {
	const payload = `{"n":[1.0,12345678901234567890,1e400,-1E-400,21.50,1e3,-0.0,0.1000000000000000055,7,2.5,9007199254740993,1.00]}`
	const want = `[1.0,12345678901234567890,1e400,-1E-400,21.50,1e3,-0.0,0.1000000000000000055,7,2.5,9007199254740993,1.0]`
	for source, want := range map[string]string{
		`json.n`: want, `filter(json.n, true)`: want, `{n: json.n}`: `{"n":` + want + `}`, `fromJSON(text).n`: want,
		`json.n[4] > 21.4 and json.n[5] == 1000`: "true", `[json.n[4], json.n[4] * 2]`: "[21.50,43]",
	} {
		if got, _, err := body(t, source, payload); got != want || err != nil {
			t.Errorf("%s gives %s, %v, want %s", source, got, err, want)
		}
	}
	if got, _, err := body(t, `toJSON(json.n)`, payload); got != want || err != nil {
		t.Errorf("toJSON gives %s, %v", got, err)
	}
}

// A number that no float64 has exactly can be written again, and a program can't compute with it.
func TestNumbersAreNotComputedWithIfThatAltersThem(t *testing.T) {
	const payload = `{"a":[0.1,0.1000000000000000055],"b":[3.14159265358979323846,3.141592653589793],"big":12345678901234567890,"small":1E-999,"t":21.50,"u":21.5}`
	for source, want := range map[string]string{
		`json.a`: `[0.1,0.1000000000000000055]`, `json.b`: `[3.14159265358979323846,3.141592653589793]`, `json.b[0] == json.b[1]`: "false", `json.a[0] == json.a[1]`: "false",
		`{s: json.small, b: json.big}`: `{"b":12345678901234567890,"s":1E-999}`, `string(json.big)`: "12345678901234567890", `json.a[0] * 2`: "0.2", `json.t + json.u`: "43",
	} {
		if got, _, err := body(t, source, payload); got != want || err != nil {
			t.Errorf("%s gives %s, %v, want %s", source, got, err, want)
		}
	}
	for _, source := range []string{
		`json.a[1] + 1`, `1 - json.a[1]`, `json.big * 2`, `json.small > 0`, `-json.big`, `json.big % 2`, `int(json.big)`, `float(json.small)`, `abs(json.b[0])`, `round(json.b[0])`, `sum(json.a)`, `max(json.b)`, `mean(json.a)`, `sort(json.b)`,
		`json.big ** 2`, `1..json.big`, `repeat("a", json.big)`, `upper(json.big)`, `join([json.big])`, `fromJSON(json.big)`, `json.b[0] + json.b[0]`, `median(json.b)`, `floor(json.b[0])`, `json.big + "a"`,
	} {
		got, _, err := body(t, source, payload)
		if handlers.KindOf(err) != handlers.KindPermanent || !strings.Contains(err.Error(), exactNumber) {
			t.Errorf("%s gives %s, %v, want an error", source, got, err)
		}
	}
}

// FuzzExpression compiles and runs any text over any payload. It ends with a value or an error.
func FuzzExpression(f *testing.F) {
	for _, source := range []string{
		`json.a.b > 3 && meta.type == "x"`, `map(json.items, .id * 2) | join(",")`, `reduce(1..60, #acc + #acc, "a")`, `let x = json; {a: x?.b ?? [1, nil], b: text[1:3]}`, `any(1..1000000, any(1..1000, # == 0))`,
		`toJSON(groupBy(json.items, #index))`, `replace(repeat(text, 100), "a", text)`, `now() - duration("1h")`, `"\u00e9" matches text`, `$env.limits`, `uniq(flatten(toPairs(json)))`, `fromJSON(toJSON(json)) == json`, `!(-size ** 2 % 3 in 1..5)`,
	} {
		f.Add(source, payload)
	}
	f.Fuzz(func(t *testing.T, source, body string) {
		for _, want := range []Want{Bool, Text, Body, List} {
			e := environment()
			e.limits.Steps, e.limits.Elements, e.limits.Bytes = 10_000, 10_000, 1<<20
			p, err := e.Compile(source, want)
			if err != nil {
				if e, ok := errors.AsType[*Error](err); !ok || e.Offset > len(source) || e.Error() == "" {
					t.Errorf("%q: %v", source, err)
				}
				continue
			}
			in := input(e, body)
			switch want {
			case Bool:
				_, err = p.Bool(in)
			case Text:
				_, _, err = p.Text(in)
			case Body:
				_, _, err = p.Body(in)
			case List:
				_, err = p.List(in, 100)
			}
			if err != nil && err.Error() == "" {
				t.Errorf("%q: an error without words", source)
			}
		}
	})
}
