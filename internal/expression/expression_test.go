package expression

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
)

const payload = `{"a":{"b":7},"s":"sss","items":[{"id":1},{"id":2}],"big":12345678901234567890,"price":0.1,"none":null,"utf":"é\u00e9"}`

func input(e *Environment, body string) *Input {
	msg := message.NewMessage("u", []byte(body))
	msg.Metadata = message.Metadata{transports.MessageID: "m", transports.Type: "data", transports.Device: "dev", "header.x y": "z"}
	return e.Message(msg)
}

// environment has the default limits except Time, which a run on a busy machine may exceed.
func environment() *Environment {
	e := New(func() time.Time { return handlertest.Start })
	e.limits.Time = time.Hour
	return e
}

// body returns the result of an expression over the payload.
func body(t *testing.T, source, payload string) (string, bool, error) {
	t.Helper()
	e := environment()
	p, err := e.Compile(source, Body)
	if err != nil {
		t.Fatal(err)
	}
	data, isJSON, err := p.Body(input(e, payload))
	return string(data), isJSON, err
}

func TestValues(t *testing.T) {
	for source, want := range map[string]string{
		`id + "," + device + "," + key`: "m,dev,dev", `meta.type`: "data", `meta["header.x y"]`: "z", `meta.absent`: "", `"type" in meta`: "JSON true",
		`topic`: "", `size`: "JSON 119", `text[0:4]`: `{"a"`, `len(meta)`: "JSON 4", `now()`: `JSON "2026-05-01T12:00:00Z"`, `now().Year() + 1`: "JSON 2027",
		`json.a.b`: "JSON 7", `json.a`: `JSON {"b":7}`, `json["a"]["b"]`: "JSON 7", `json.items[1].id`: "JSON 2", `json.items[-1].id`: "JSON 2", `json.big`: "JSON 12345678901234567890",
		`string(json.big) + string(json.price) + string(true) + string(nil) + string(json.a)`: `123456789012345678900.1true{"b":7}`,
		`json.price + 1`: "JSON 1.1", `json.a.b / 2`: "JSON 3.5", `json.absent ?? "x"`: "x", `json?.x?.y ?? "x"`: "x", `json.none ?? "x"`: "x", `json.utf`: "éé",
		`let a = json.a; a.b + 1`: "JSON 8", `{device: device, n: [json.a.b, 1.5, nil, true]}`: `JSON {"device":"dev","n":[7,1.5,null,true]}`,
		`any(json.items, .id == 2)`: "JSON true", `filter(json.items, .id > 1)`: `JSON [{"id":2}]`, `map(json.items, # .id * 2)`: "JSON [2,4]", `sum(json.items, .id)`: "JSON 3",
		`map(json.items, map(1..2, #))`: "JSON [[1,2],[1,2]]", `reduce(json.items, #acc + #.id, 10)`: "JSON 13", `count(json.items, .id > 0)`: "JSON 2", `find(json.items, .id == 2).id`: "JSON 2",
		`sortBy(json.items, .id, "desc")[0].id`: "JSON 2", `groupBy(json.items, .id)`: `JSON {"1":[{"id":1}],"2":[{"id":2}]}`, `keys(json.a)`: `JSON ["b"]`, `toPairs(json.a)`: `JSON [["b",7]]`,
		`json.s matches "^s+$"`: "JSON true", `json.s matches json.s`: "JSON true", `json.s contains "ss"`: "JSON true", `json.s in ["x","sss"]`: "JSON true", `json.a.b in 5..9`: "JSON true",
		`json.s in map(json.items, string(.id))`: "JSON false", `json.s not in ["x"]`: "JSON true",
		`upper(json.s) | replace("S", "tt")`: "tttttt", `replace("aaa", "a", "b", 1)`: "baa", `repeat("ab", 2)`: "abab", `repeat("", 9000000000)`: "", `join(["a","b"], "-")`: "a-b", `split("a,b", ",") | join()`: "ab",
		`lines("a\r\nb\n\nc\n")`: `JSON ["a","b","","c"]`, `lines("")`: "JSON []", `trim("  x ")`: "x", `toJSON({b: 1, a: "\"\u0007\n"})`: `{"a":"\"\u0007\n","b":1}`, `fromJSON("[1,2.5]")[1]`: "JSON 2.5",
		`toBase64("a")`: "YQ==", `fromBase64("/w==")`: "\xff", `uniq([1,2,2])`: "JSON [1,2]", `duration("5m")`: `JSON "5m0s"`, `date("2024-01-02").Unix()`: "JSON 1704153600",
		`type(json.a)`: "map", `int("7") + 1`: "JSON 8", `max(json.a.b, 9)`: "JSON 9", `json.a.b > 5 ? "hot" : "cold"`: "hot", `json.s + "x" + json.s`: "sssxsss", `now() + duration("1h") > now()`: "JSON true",
		`1..3`: "JSON [1,2,3]", `b"abc"`: "abc", `json.a == fromJSON("{\"b\":7}")`: "JSON true", `if json.a.b > 5 { "hot" } else { "cold" }`: "hot",
	} {
		got, isJSON, err := body(t, source, payload)
		if isJSON {
			got = "JSON " + got
		}
		if err != nil || got != want {
			t.Errorf("%s gives %q, %v, want %q", source, got, err, want)
		}
	}
}

// Every function that reads, makes or compares much is counted before it runs. Without that, many
// of the cases would run for minutes, and some for years. The limits are a fraction of the real
// ones, because the race detector is slow.
func TestNoFunctionTakesLong(t *testing.T) {
	const doubled = `reduce(1..60, [#acc, #acc], 0)`
	long := `{"s":"` + strings.Repeat("a", 50_000) + `","e":"` + strings.Repeat("é", 50_000) + `","n":[` + strings.Repeat("1,", 50_000) + `2],"objs":[` + strings.Repeat(`{"id":5,"w":[1,2]},`, 3_000) + `1]}`
	const steps, elements, text, large, memory = "more than 62500 steps", "elements of lists and maps", "bytes of strings", "too large with all its content", "lists and maps of this message take more"
	for source, want := range map[string]string{
		// The cost of a regular expression is its size, and its compilation unless it is a
		// constant.
		`json.s matches "((a{0,10}){0,10}){0,10}$"`:                      steps,
		`json.s matches ("((a{0,10}){0,10})" + "{0,10}$")`:               steps,
		`count(1..60000, "a" matches ("((a{0,10}){0,10})" + "{0,10}$"))`: steps,
		`json.s matches ("(((abcde){0,10}){0,10})" + "{0,10}$")`:         "allowed: up to 3000",
		`"a" matches json.s`:                          "the regular expression has 50000 bytes; allowed: up to 16384",
		`count(1..60000, json.s matches "x(a|b)*c$")`: steps,
		// A list can contain another list many times.
		`flatten(` + doubled + `)`:                        large,
		`max(` + doubled + `)`:                            large,
		`min(` + doubled + `)`:                            large,
		`mean(` + doubled + `)`:                           large,
		`median(` + doubled + `)`:                         large,
		`[` + doubled + `] == [1]`:                        large,
		`uniq([` + doubled + `])`:                         large,
		`1 in ` + doubled:                                 large,
		`fromPairs(reduce(1..60, [#acc, #acc, #acc], 0))`: large,
		`json.absent[` + doubled + `]`:                    large,
		`reduce(1..60, ({a: #acc, b: #acc}), 0)`:          large,
		`reduce(1..60, let a = #acc; map(1..2, a), 0)`:    "more than",
		`reduce(1..60, concat([#acc], [#acc]), [1])`:      "more than",
		`reduce(1..60, concat(#acc, #acc), [1])`:          elements,
		`reduce(1..60, [#acc, #acc] | map([#, #]), 0)`:    "more than",
		`let a = [1,size]; let b=[a,a]; let c=[b,b,b,b,b,b,b,b,b,b,b,b]; let d=[c,c,c,c,c,c,c,c,c,c,c,c]; let e=[d,d,d,d,d,d,d,d,d,d,d]; let f=[e,e,e,e,e,e,e,e,e]; let g=[f,f,f,f,f,f,f,f]; let h=[g,g,g,g,g,g,g,g]; [h,h,h,h,h,h,h,h,h,h]`: large,
		`map(1..60000, median(json.n))`: steps,
		`let a = reduce(1..16, [#acc, #acc], 0); let b = reduce(1..16, [#acc, #acc], 0); count(1..60000, a == b)`: steps,
		// Comparisons, by the size of the compared values.
		`let a = json.s + "x"; let b = json.s + "y"; sort(map(1..120, # % 2 == 0 ? a : b))`: steps,
		`let a = json.s + "x"; let b = json.s + "y"; sortBy(1..20000, # % 2 == 0 ? a : b)`:  steps,
		`let a = json.s + "x"; count(1..60000, json.s < a)`:                                 steps,
		`let a = json.s + "x"; uniq(map(1..120, # % 2 == 0 ? a : json.s))`:                  steps,
		`uniq(json.objs)`:                             steps,
		`count(1..60000, json.s == json.e)`:           steps,
		`count(1..60000, json.s startsWith json.s)`:   steps,
		`count(1..60000, hasPrefix(json.s, json.s))`:  steps,
		`count(1..60000, json.s endsWith json.s)`:     steps,
		`count(1..60000, 5 in json.n)`:                steps,
		`count(1..60000, json.n in [json.n, json.e])`: steps,
		`count(1..60000, len(json.s) > 0)`:            steps,
		`count(1..60000, indexOf(json.s, "b") > 0)`:   steps,
		`trim(json.e, json.s + "é")`:                  steps,
		`groupBy(1..60000, json.s)`:                   steps,
		// Values that take much memory.
		`groupBy(1..60000, #)`:                            memory,
		`map(1..100, groupBy(1..900, #))`:                 memory,
		`split(repeat("a", 4000000), "")`:                 text,
		`splitAfter(repeat("a", 4000000), "a")`:           text,
		`split(repeat("a,", 2000000), ",", 1500000)`:      text,
		`map(1..1000, split(json.s, ""))`:                 text,
		`fromJSON("[" + repeat("{},", 60000) + "1]")`:     memory,
		`fromJSON("[" + repeat("1000,", 800000) + "1]")`:  "more than",
		`map(1..1000, fromJSON(text))`:                    "more than",
		`map(json.objs, json.n)`:                          steps,
		`map(json.objs, ({x: json.objs}))`:                steps,
		`let x = 1..60000; concat(x,x,x,x,x,x,x,x,x,x,x)`: steps,
		`map(1..100, reverse(json.n))`:                    elements,
		// Functions that read files.
		`count(1..60000, timezone("Europe/Berlin") != nil)`:                         steps,
		`count(1..60000, date("2024-01-01", "2006-01-02", "Europe/Berlin") != nil)`: steps,
	} {
		e := environment()
		e.limits = Limits{Steps: 62_500, Elements: 62_500, Bytes: 4 << 20, Values: 16 << 20, Payload: 16 << 20, Time: e.limits.Time}
		p, err := e.Compile(source, Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.Body(input(e, long)); err == nil || !strings.Contains(err.Error(), want) || handlers.KindOf(err) != handlers.KindPermanent {
			t.Errorf("%s: %.300v, want %s", source, err, want)
		}
	}
	for source, most := range map[string]int{
		`fromPairs([[1, json.s, json.s]])`: 600, `int(json.s)`: 600, `date(json.s)`: 600, `json.absent[json.s]`: 600,
	} {
		if _, _, err := body(t, source, long); err == nil || len(err.Error()) > most {
			t.Errorf("%s: an error of %d bytes", source, len(fmt.Sprint(err)))
		}
	}
	// Real programs over large messages stay far below the limits.
	for _, source := range []string{
		`sort(json.n)`, `sortBy(json.n, #)`, `max(json.n)`, `json.objs == json.objs`, `json.s matches "^(a|b)+$"`, `split(json.s, "a")`, `reduce(json.objs[0:1000], concat(#acc, [#]), [])`,
		`map(json.objs[0:2999], ({id: .id, w: .w, s: size}))`, `trim(json.e, "xyé")`, `{device: device, all: json}`, `groupBy(json.objs[0:2999], .id)`,
	} {
		if _, _, err := body(t, source, long); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// Each error names the place inside the expression and the cause. It is permanent.
func TestFailures(t *testing.T) {
	for source, want := range map[string]string{
		`json.x.y`:                  "cannot fetch y from nil (column 8 of json.x.y)",
		"1 +\n  json.x.y":           "cannot fetch y from nil (line 2, column 10 of 1 + json.x.y)",
		`json.s > 3`:                "invalid operation: string > int (column 8",
		`json.absent > 3`:           "invalid operation: nil > int",
		`json.a + 1`:                "invalid operation: map[string]interface {} + int",
		`json.s and json.s`:         "a value of type string is in a place where a bool is needed",
		`json.big + 1`:              "invalid operation: number of too many digits to compute with + int",
		`json.absent`:               "gives nil; allowed: a value",
		`join(json.items, ",")`:     "join: element 0 is a map; allowed: strings",
		`join(json.s)`:              "join: a string is in a place where a list is needed",
		`replace(json.a, "x", "y")`: "a map is in a place where a string is needed",
		`repeat("x", -1)`:           "repeat: -1 times",
		`fromJSON("[1,")`:           "fromJSON: byte 4: the end; expected: a value",
		`[0.0/0.0]`:                 "NaN has no form in JSON",
		`[fromBase64("/w==")]`:      "isn't valid UTF-8",
		`json.s matches "(" + "x"`:  "missing closing )",
		`groupBy(json.items, #)`:    "unhashable type",
		`json.items[5]`:             "index out of range: 5 (array length is 2)",
	} {
		_, _, err := body(t, source, payload)
		e, ok := errors.AsType[*Error](err)
		if !ok || !strings.Contains(err.Error(), want) || handlers.KindOf(err) != handlers.KindPermanent || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", source, err, want)
		} else if e.Offset > len(source) {
			t.Errorf("%s: wrong at %d", source, e.Offset)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for _, c := range []struct {
		source string
		want   Want
		offset int
		text   string
	}{
		{``, Bool, 0, "empty"},
		{" \n", Bool, 0, "empty"},
		{`1 +`, Body, 2, "unexpected token EOF"},
		{`meta.exchange == "e"`, Bool, 5, "the key exchange is meta[\"source.exchange\"] now"},
		{`"k" == meta["routing_key"]`, Bool, 12, "the key routing_key is meta[\"source.routing_key\"] now"},
		{`size > 1 and foo`, Bool, 13, "unknown name foo"},
		{`meta.type == "é" and foo`, Bool, 22, "unknown name foo"},
		{`text`, Bool, 0, "gives a string; allowed: true or false"},
		{`1 + 1`, Bool, 0, "gives a number; allowed: true or false"},
		{`size`, List, 0, "gives a number; allowed: a list"},
		{`len`, Body, 0, "gives a function; allowed: a value"},
		{`upper(5)`, Text, 6, "cannot use int as argument (type string) to call upper"},
		{`text > 3`, Bool, 5, "invalid operation: > (mismatched types string and int)"},
		{`repeat(text + 1, 2)`, Text, 12, "mismatched types string and int"},
		{`any(json.items, 1)`, Bool, 16, "predicate should return boolean"},
		{`let id = 1; id`, Body, 4, "cannot redeclare id"},
		{`1 + $env`, Body, 4, "unknown name $env"},
		{`$env["step"]`, Body, 4, "unknown name step"},
		{`$env?.id`, Body, 0, "unknown name $env"},
		{`{"a": now}`, Body, 6, "now is a function; allowed: now()"},
		{`text matches "("`, Bool, 5, "missing closing )"},
		{`text matches "^.{1,1000}.{1,1000}"`, Bool, 13, "the regular expression has a size of 4004, because counted repetitions multiply the size of their content; allowed: up to 3000"},
		{`lenn(text) > 1`, Bool, 0, "unknown name lenn; did you mean len?"},
		{`sise > 1`, Bool, 0, "unknown name sise; did you mean size?"},
		{`tolower(text)`, Text, 0, "unknown name tolower; did you mean lower?"},
		{`length(text) > 1`, Bool, 0, "unknown name length; did you mean len?"},
		{`startsWith(text, "x")`, Bool, 0, `startsWith is an operator; allowed: text startsWith "x"`},
		{`matches(text, "x")`, Bool, 0, `matches is an operator; allowed: text matches "x"`},
		{`size > 1 and contains(text, "x")`, Bool, 13, `contains is an operator; allowed: text contains "x"`},
		{`any(json.list, every(.x, # > (1)))`, Body, 15, "unknown name every; did you mean all?"},
		{`filter(json.list, )`, Body, 18, "unexpected token"},
		{`some(json.list, # > 1)`, Bool, 0, "did you mean any?"},
		{`payload.a`, Body, 0, "did you mean text?"},
		{`fliter(json.list, .x)`, Body, 0, "did you mean filter?"},
		{`zzz(text)`, Body, 0, "unknown name zzz"},
		{`meta.foo()`, Body, 5, "not callable"},
		{`now(1)`, Body, 0, "too many arguments to call now"},
		{`·step`, Body, 0, ""},
		{strings.Repeat("1+", maxNodes) + "1", Body, 2001, "exceeds maximum allowed nodes"},
		{strings.Repeat("(", 10000), Body, 0, ""},
		{strings.Repeat("x", maxSource+1), Body, 0, "allowed: up to 16384"},
	} {
		_, err := environment().Compile(c.source, c.want)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Offset != c.offset && c.text != "" || !strings.Contains(e.Message, c.text) || e.Offset > len(c.source) {
			t.Errorf("%.80s: %v (%+v), want %q at %d", c.source, err, e, c.text, c.offset)
		}
	}
}

func TestEveryFunctionIsKnown(t *testing.T) {
	for name := range functions {
		if _, ok := builtins[name]; ok {
			t.Errorf("%s is the host's and the language's", name)
		}
	}
	got := slices.Sorted(maps.Keys(builtins))
	// The host replaces the other functions of the language. A function of a new version of the
	// language is disabled until it is counted.
	for _, name := range []string{"now", "string", "toJSON", "fromJSON", "repeat", "replace", "join", "split", "splitAfter", "trim"} {
		if _, ok := functions[name]; !ok || slices.Contains(got, name) {
			t.Errorf("%s isn't the host's", name)
		}
	}
}

// An expression that would run for long or make much ends with an error. The next message isn't
// affected.
func TestLimits(t *testing.T) {
	list := `{"list":[` + strings.Repeat(`"0123456789",`, 999) + `"x"],"s":"` + strings.Repeat("a", 50_000) + `"}`
	for source, want := range map[string]string{
		`any(json.list, let a = #; any(json.list, # + "x" == a))`:    "more than 50000 steps",
		`any(1..10000000, # < 0)`:                                    "elements of lists and maps",
		`map(json.list, map(json.list, 1))`:                          "more than",
		`count(json.list, json.s in json.list)`:                      "more than 50000 steps",
		`count(json.list, json.s contains "b")`:                      "more than 50000 steps",
		`count(json.list, json.s matches "(a|b)*c$")`:                "more than 50000 steps",
		`uniq(json.list)`:                                            "more than 50000 steps",
		`reduce(1..60, #acc + #acc, "a")`:                            "bytes of strings",
		`repeat("aa", 9000000000000000000)`:                          "bytes of strings",
		`repeat(json.s, 1000)`:                                       "bytes of strings",
		`replace(json.s, "a", json.s)`:                               "bytes of strings",
		`replace(json.s, "", json.s)`:                                "bytes of strings",
		`map(json.list, json.s) | join()`:                            "bytes of strings",
		`join(map(json.list, ""), json.s)`:                           "bytes of strings",
		`map(json.list, upper(json.s))`:                              "bytes of strings",
		`map(json.list, json.s)`:                                     "bytes of strings",
		`map(1..1000, toJSON(json))`:                                 "bytes of strings",
		`map(json.list, split(json.s, ""))`:                          "bytes of strings",
		`map(1..100, lines(replace(json.s, "a", "\n")))`:             "bytes of strings",
		`toJSON(reduce(1..2000, [#acc], 0))`:                         "nested too deep",
		`string(reduce(1..20000, [#acc], 0))`:                        "nested too deep",
		`fromJSON(repeat("[", 1000000))`:                             "nested too deep",
		`flatten(reduce(1..20000, [#acc], 0))`:                       "nested too deep",
		`toJSON(reduce(1..40, ({a: #acc, b: #acc}), json.list))`:     "too large with all its content",
		`let a = reduce(1..30, [#acc, #acc], 0); toJSON(a)`:          "too large with all its content",
		`count(1..100000, fromJSON(json.s) != nil)`:                  "fromJSON",
		`map(json.list, keys(json)) | map(toJSON(json.list) + "xx")`: "bytes of strings",
	} {
		e := environment()
		e.limits = Limits{Steps: 50_000, Elements: 100_000, Bytes: 1 << 20, Payload: 1 << 20, Values: 4 << 20, Time: e.limits.Time}
		p, err := e.Compile(source, Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.Body(input(e, list)); err == nil || !strings.Contains(err.Error(), want) || handlers.KindOf(err) != handlers.KindPermanent {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}

func TestEndOfTheContext(t *testing.T) {
	e := environment()
	p, err := e.Compile(`count(1..100000, # > 5) == 3`, Bool)
	if err != nil {
		t.Fatal(err)
	}
	in := input(e, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(transports.ErrVoid)
	in.msg.SetContext(ctx)
	if _, err := p.Bool(in); !errors.Is(err, transports.ErrVoid) || handlers.KindOf(err) != handlers.KindRetryable {
		t.Errorf("%v, %v", err, handlers.KindOf(err))
	}
}

// Time limits work that no step counts. The error isn't the message's fault.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := environment()
		e.limits = DefaultLimits
		in := input(e, "")
		for range clockEvery {
			if err := in.spendSteps(1); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(e.limits.Time + 1)
		var err error
		for range clockEvery {
			err = errors.Join(err, in.spendSteps(1))
		}
		p, compileErr := e.Compile("true", Bool)
		if compileErr != nil {
			t.Fatal(compileErr)
		}
		if err == nil || handlers.KindOf(p.runError(err)) != handlers.KindRetryable || !strings.Contains(err.Error(), "more than 2s") {
			t.Error(err)
		}
	})
}

func TestPayloads(t *testing.T) {
	huge := strings.Repeat("x", DefaultLimits.Payload+1)
	for _, c := range []struct{ source, payload, want string }{
		{`json.a`, "open", "reading the payload as JSON: byte 1: 'o'; expected: a value (column 1 of json.a)"},
		{`json.a`, "", "byte 1: the end; expected: a value"},
		{`json.a`, "{\"a\":1", `byte 7: the end; expected: "," or "}"`},
		{`json.a`, `{"a":1,"b":["\ud800"]}`, "byte 14: the string has half of a surrogate pair"},
		{`json.a`, "{\"b\":\"x\xff\"}", "byte 8: the string is not UTF-8"},
		{`json.b`, `{"a":1}x`, "byte 8: 'x'; expected: the end"},
		{`json.b`, `{"a":tru}`, "expected: true"},
		{`json.b`, strings.Repeat("[", 100_000), "nested too deep; allowed: 500 levels"},
		{`json.b`, huge, "the payload has 16777217 bytes; an expression reads up to 16777216"},
		{`text`, huge, "the payload has 16777217 bytes"},
	} {
		_, _, err := body(t, c.source, c.payload)
		if err == nil || !strings.Contains(err.Error(), c.want) || handlers.KindOf(err) != handlers.KindPermanent {
			t.Errorf("%s of %.20q: %v", c.source, c.payload, err)
		}
	}
	for _, source := range []string{`size`, `meta.type`, `false && json.a`} {
		if _, _, err := body(t, source, huge); err != nil {
			t.Errorf("%s reads the payload: %v", source, err)
		}
	}
	if got, _, err := body(t, `text`, "a\xffb"); err != nil || got != "a\xffb" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBoolAndText(t *testing.T) {
	for source, want := range map[string]string{
		`json.none`: "false ", `json.absent`: "false ", `json.a.b == 7`: "true true", `not (json.a.b == 7)`: "false false",
		`json.s`: "gives a string; allowed: true or false", `json.a.b`: "gives a number; allowed: true or false",
	} {
		e := environment()
		p, err := e.Compile(source, Bool)
		if err != nil {
			t.Fatal(err)
		}
		in := input(e, payload)
		b, err := p.Bool(in)
		text, _, textErr := p.Text(in)
		switch {
		case textErr != nil:
			t.Error(textErr)
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v", source, err)
		case err == nil && want != map[bool]string{true: "true ", false: "false "}[b]+text:
			t.Errorf("%s: %v %q", source, b, text)
		}
	}
	e := environment()
	p, err := e.Compile("text", Text)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Text(input(e, "\xff")); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Error(err)
	}
}

func TestLists(t *testing.T) {
	for _, c := range []struct{ source, payload, want string }{
		{`json`, ` [ {"z" : 1.10, "a":2} , "x\ny", 12345678901234567890, null ,[1, 2]]`, `{"z" : 1.10, "a":2}|'x` + "\n" + `y'|12345678901234567890|null|[1, 2]`},
		{`json.a.b`, `{"x":[9],"a":{"b":[1],"b" : [2,3]}}`, `2|3`},
		{`json["a b"]`, `{"a b":["\u00e9"]}`, `'é'`},
		{`json`, `[]`, ``},
		{`json.a`, `{"a":[]}`, ``},
		{`filter(json, # > 1)`, `[1,2,3]`, `2|3`},
		{`map(json, ({n: #}))`, `[1,"x"]`, `{"n":1}|{"n":"x"}`},
		{`lines(text)`, "a\r\nb\n", `'a'|'b'`},
		{`json.a[0]`, `{"a":[[1,2]]}`, `1|2`},
		{`json`, `{"a":1}`, `! json is not a list`},
		{`json.a`, `{"b":1}`, `! json.a doesn't exist`},
		{`json.a.b`, `{"a":1}`, `! json.a.b doesn't exist`},
		{`json.a`, `{"a":"x"}`, `! json.a is not a list`},
		{`json`, `[1,2,3,4,5,6]`, `! the list has more than 5 elements`},
		{`json`, `[1,2`, `! reading the payload as JSON: byte 5`},
		{`json ?? 1`, `{"a":1}`, `! gives a map; allowed: a list`},
		{`json ?? 1`, `null`, `! gives a number; allowed: a list`},
		{`1..6`, ``, `! gives 6 elements; allowed: up to 5`},
		{`[json]`, `x`, `! reading the payload`},
	} {
		e := environment()
		p, err := e.Compile(c.source, List)
		if err != nil {
			t.Fatal(err)
		}
		list, err := p.List(input(e, c.payload), 5)
		var got []string
		for _, el := range list {
			if el.JSON {
				got = append(got, string(el.Data))
			} else {
				got = append(got, "'"+string(el.Data)+"'")
			}
		}
		if want, fails := strings.CutPrefix(c.want, "! "); fails {
			if err == nil || !strings.Contains(err.Error(), want) || handlers.KindOf(err) != handlers.KindPermanent {
				t.Errorf("%s of %s: %v", c.source, c.payload, err)
			}
		} else if diff := cmp.Diff(c.want, strings.Join(got, "|")); err != nil || diff != "" {
			t.Errorf("%s of %s: %v %s", c.source, c.payload, err, diff)
		}
	}
}
