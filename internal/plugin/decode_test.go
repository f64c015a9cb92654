package plugin

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/spelling"
)

type shape interface{ Shape() }

type round struct {
	Radius float64 `toml:"radius" doc:"How large." min:"0"`
	Inside shape   `toml:"inside" doc:"What is inside." renamed:"content"`
}

func (*round) Shape() {}

type target string

func (target) References() string { return "topic" }

type hidden string

func (hidden) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

type common struct {
	Note string `toml:"note" doc:"A note." renamed:"remark,comment"`
}

type inner struct {
	On   bool   `toml:"on" doc:"Whether."`
	Word string `toml:"word" doc:"A word."`
}

func (i *inner) SetDefaults() { i.On = true }

type everything struct {
	common
	Text     string            `toml:"text" doc:"Some text." example:"\"x\"" max:"5"`
	Bool     bool              `toml:"bool" doc:"A switch."`
	Int8     int8              `toml:"int8" doc:"A small number."`
	Uint     uint16            `toml:"uint" doc:"A positive number." unit:"bytes"`
	Float    float64           `toml:"float" doc:"A number."`
	Wait     time.Duration     `toml:"wait" doc:"A time." min:"1s" max:"1m"`
	List     []string          `toml:"list" doc:"Words." enum:"a,b"`
	Numbers  []int             `toml:"numbers" doc:"Numbers." min:"1"`
	Labels   map[string]string `toml:"labels" doc:"Labels."`
	Inner    inner             `toml:"inner" doc:"A table."`
	Optional *inner            `toml:"optional" doc:"A table or none."`
	Maybe    *bool             `toml:"maybe" doc:"A switch or none."`
	Many     []inner           `toml:"many" doc:"Tables."`
	Named    map[string]inner  `toml:"named" doc:"Tables by name."`
	Any      map[string]any    `toml:"any" doc:"Anything."`
	Level    slog.Level        `toml:"level" doc:"A level."`
	Pattern  *regexp.Regexp    `toml:"pattern" doc:"A pattern."`
	At       time.Time         `toml:"at" doc:"A moment."`
	To       target            `toml:"to" doc:"A topic."`
	Secret   hidden            `toml:"secret" doc:"A secret."`
	Form     shape             `toml:"shape" doc:"A shape."`
	Ignored  string
	Dashed   string `toml:"-"`
}

var everythingDefaults = everything{
	Text: "x", Labels: map[string]string{"a": "b"}, Optional: &inner{Word: "shared"}, List: []string{"a"},
	Wait: 90 * time.Second, Form: &round{Radius: 2},
}

func testSet() *Set {
	set := &Set{kinds: map[string]*Kind{}}
	set.Define("shape", reflect.TypeFor[shape]())
	set.Register("shape", Info{Name: "round", Summary: "Round.", New: func() any { return &round{Radius: 1} }})
	return set
}

func TestDecodeEverything(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := Decoder{Set: testSet()}
	got := everythingDefaults
	d.Table("x", map[string]any{
		"note": "n", "text": Substituted{Text: "8123", Source: "${P}", Whole: true},
		"bool": Substituted{Text: "true", Source: "${B}", Whole: true}, "int8": int64(-128), "uint": Substituted{Text: "65535", Source: "${P}", Whole: true},
		"float": int64(3), "wait": "1m", "list": "b", "numbers": []any{int64(1), Substituted{Text: "2", Source: "${P}", Whole: true}},
		"labels": map[string]any{"c": "d"}, "inner": map[string]any{"word": "w"}, "optional": map[string]any{"on": true},
		"maybe": false, "many": []map[string]any{{"word": "1"}, {"on": false}}, "named": map[string]any{"a b": map[string]any{}},
		"any": map[string]any{
			"n": Substituted{Text: "7", Source: "${P}", Whole: true}, "f": Substituted{Text: "0.5", Source: "${P}", Whole: true},
			"b": Substituted{Text: "false", Source: "${P}", Whole: true}, "s": Substituted{Text: "7", Source: "${P}${Q}"},
			"t": []map[string]any{{"x": []any{"y"}}},
		},
		"level": "WARN", "pattern": "^a+$", "at": at, "to": "a:b", "secret": "shh",
		"shape": map[string]any{"type": "round", "radius": 0.5},
	}, &got)
	if len(d.Problems) > 0 {
		t.Fatal(d.Problems)
	}
	no := false
	want := everything{
		common: common{"n"}, Text: "8123", Bool: true, Int8: -128, Uint: 65535, Float: 3, Wait: time.Minute, List: []string{"b"}, Numbers: []int{1, 2},
		Labels: map[string]string{"c": "d"}, Inner: inner{Word: "w"}, Optional: &inner{On: true, Word: "shared"}, Maybe: &no,
		Many: []inner{{On: true, Word: "1"}, {}}, Named: map[string]inner{"a b": {On: true}},
		Any: map[string]any{
			"n": int64(7), "f": 0.5, "b": false, "s": "7", "t": []any{map[string]any{"x": []any{"y"}}},
		},
		Level: slog.LevelWarn, Pattern: regexp.MustCompile("^a+$"), At: at, To: "a:b", Secret: "shh", Form: &round{Radius: 0.5},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(everything{}), cmp.Comparer(func(a, b *regexp.Regexp) bool { return a.String() == b.String() })); diff != "" {
		t.Error(diff)
	}
	// The defaults are one value for all uses: decoding must not reach through their maps and
	// pointers.
	if everythingDefaults.Optional.On || everythingDefaults.Labels["a"] != "b" || len(everythingDefaults.Labels) != 1 {
		t.Errorf("the defaults were changed: %+v", everythingDefaults)
	}
	if diff := cmp.Diff([]Ref{{Path: "x.to", To: "topic", Value: "a:b", Shown: `"a:b"`}}, d.References); diff != "" {
		t.Error(diff)
	}
	if inst := d.Instances["x.shape"]; inst.Type != "round" || inst.Config != got.Form {
		t.Errorf("the shape's instance is %+v", inst)
	}
}

func TestDecodeProblems(t *testing.T) {
	long := strings.Repeat("x", 6)
	for name, test := range map[string]struct {
		key  string
		v    any
		want string
	}{
		"int8":              {"int8", int64(128), "x.int8: 128 is too large"},
		"negative":          {"uint", int64(-1), "x.uint: -1 is too small; allowed: from 0 bytes"},
		"uint16":            {"uint", int64(70000), "x.uint: 70000 is too large; allowed: from 0 bytes"},
		"not whole":         {"int8", Substituted{Text: "1", Source: "${A}${B}"}, `x.int8: the value of "${A}${B}" can't stand here; allowed: an integer`},
		"not a bool":        {"bool", Substituted{Text: "yes", Source: "${A}", Whole: true}, `x.bool: the value of "${A}" can't stand here; allowed: true or false`},
		"infinite":          {"float", Substituted{Text: "inf", Source: "${A}", Whole: true}, `x.float: the value of "${A}" can't stand here; allowed: a finite number`},
		"too long":          {"text", long, "x.text: a length of 6 is too large; allowed: up to 5 characters"},
		"integer as text":   {"text", int64(5), `x.text: an integer can't stand here; allowed: a string such as "x"; did you mean "5"?`},
		"short wait":        {"wait", "1ms", `x.wait: "1ms" is too small; allowed: from 1s to 1m`},
		"enum of a list":    {"list", []any{"a", "B"}, `x.list[1]: "B" is not known; allowed: a, b; did you mean "b"?`},
		"enum alone":        {"list", "c", `x.list: "c" is not known; allowed: a, b`},
		"empty list":        {"numbers", []any{}, "x.numbers: a length of 0 is too small; allowed: from 1 elements"},
		"list of tables":    {"many", map[string]any{}, "x.many: a table can't stand here; allowed: a list"},
		"element":           {"many", []any{map[string]any{"word": true}}, "x.many[0].word: a bool can't stand here; allowed: a string; did you mean \"true\"?"},
		"value of a map":    {"labels", map[string]any{"a b": int64(1)}, `x.labels."a b": an integer can't stand here; allowed: a string; did you mean "1"?`},
		"text unmarshaler":  {"level", "loud", `x.level: "loud" doesn't fit: slog: level string "loud": unknown name`},
		"text of number":    {"level", int64(1), "x.level: an integer can't stand here; allowed: a string"},
		"pattern":           {"pattern", "(", "x.pattern: \"(\" doesn't fit: error parsing regexp: missing closing ): `(`"},
		"secret":            {"secret", []any{"shh"}, "x.secret: a list can't stand here; allowed: a string"},
		"secret number":     {"secret", int64(1234567), "x.secret: an integer can't stand here; allowed: a string"},
		"plugin":            {"shape", "square", `x.shape: there is no shape "square"; allowed: round`},
		"plugin's field":    {"shape", map[string]any{"type": "round", "radius": -1.5}, "x.shape.radius: -1.5 is too small; allowed: from 0"},
		"plugin without":    {"shape", map[string]any{}, "x.shape.type: missing: the type of the shape; allowed: round"},
		"plugin misnamed":   {"shape", map[string]any{"type": "rund"}, `x.shape.type: there is no shape type "rund"; allowed: round; did you mean "round"?`},
		"plugin of a plain": {"shape", true, "x.shape: a bool can't stand here; allowed: the name of a shape, or a table with its type"},
		"renamed":           {"comment", "n", "x.comment: comment is now note"},
		"renamed in plugin": {"shape", map[string]any{"type": "round", "content": "round"}, "x.shape.content: content is now inside"},
		"unknown in plugin": {"shape", map[string]any{"type": "round", "colour": 1}, "x.shape.colour: unknown key; allowed: type, radius, inside"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decoder{Set: testSet()}
			got := everythingDefaults
			d.Table("x", map[string]any{test.key: test.v}, &got)
			if len(d.Problems) != 1 {
				t.Fatalf("want one problem, got %v", d.Problems)
			}
			if text := d.Problems[0].Path + ": " + d.Problems[0].Message; text != test.want {
				t.Errorf("got  %s\nwant %s", text, test.want)
			}
		})
	}
}

// A required field under its old key is reported once, not also as missing.
func TestRenamedRequired(t *testing.T) {
	var config struct {
		Retention time.Duration `toml:"retention" doc:"A time." renamed:"window" required:"true"`
	}
	d := Decoder{Set: testSet()}
	d.Table("x", map[string]any{"window": "1m"}, &config)
	if diff := cmp.Diff([]Problem{{Path: "x.window", Message: "window is now retention"}}, d.Problems); diff != "" {
		t.Error(diff)
	}
}

func TestNamedTables(t *testing.T) {
	d := Decoder{Set: testSet(), Tables: map[string]map[string]any{"shape": {
		"small": map[string]any{"type": "round", "radius": 0.1},
		"outer": map[string]any{"type": "round", "inside": "small"},
		"round": map[string]any{"radius": 7.0},
	}}, ReadyMade: map[string]map[string]any{"shape": {
		"small": map[string]any{"type": "round", "radius": 3.0},
		"large": map[string]any{"type": "round", "radius": 9.0, "inside": "small"},
	}}}
	for name, want := range map[string]*round{
		"small": {Radius: 0.1}, "outer": {Radius: 1, Inside: &round{Radius: 0.1}}, "round": {Radius: 7},
		"large": {Radius: 9, Inside: &round{Radius: 0.1}},
	} {
		inst, ok := d.Plugin("shape", "x", name)
		if !ok || inst.Path != "shape."+name || inst.Name != name || inst.Type != "round" || !reflect.DeepEqual(inst.Config, want) {
			t.Errorf("%s: got %+v, want %+v", name, inst, want)
		}
		again, _ := d.Plugin("shape", "y", name)
		if again.Config == inst.Config {
			t.Errorf("%s: two uses share an instance", name)
		}
	}
	if len(d.Problems) > 0 {
		t.Error(d.Problems)
	}
	if !d.Used["shape.small"] || d.Used["shape.x"] {
		t.Errorf("used: %v", d.Used)
	}
}

type judged struct {
	Named  map[string]inner `toml:"named" doc:"Tables by name."`
	Secret hidden           `toml:"secret" doc:"A secret."`
	Plain  int              `toml:"plain" doc:"A number." max:"3"`
	Table  inner            `toml:"table" doc:"A table."`
	says   error
}

func (j *judged) Validate() error { return j.says }
func (j *judged) Shape()          {}

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		tree map[string]any
		says error
		want []string
	}{
		"silent": {},
		"tree of errors": {
			says: errors.Join(Invalid("plain", "is %d", 0), errors.Join(fmt.Errorf("at all: %w", Invalid("table.on", "is off"))), errors.New("all of it")),
			want: []string{"x.plain: is 0", "x.table.on: is off", "x: all of it"},
		},
		"keys with dots": {
			tree: map[string]any{"named": map[string]any{"a": map[string]any{}, "a.b": map[string]any{"word": "x"}}},
			says: errors.Join(Invalid("named.a.b.word", "is x"), Invalid("named.a.word", "is none"), Invalid("named.c.d", "is none")),
			want: []string{`x.named."a.b".word: is x`, "x.named.a.word: is none", "x.named.c.d: is none"},
		},
		"what is known already": {
			tree: map[string]any{"plain": int64(4), "table": map[string]any{"on": "x"}},
			says: errors.Join(Invalid("plain", "is bad"), Invalid("table", "is bad"), Invalid("table.word", "is bad"), errors.New("all of it")),
			want: []string{"x.plain: 4 is too large; allowed: up to 3", "x.table.on: a string can't stand here; allowed: true or false", "x.table.word: is bad"},
		},
		"secrets": {
			tree: map[string]any{"secret": "amqp://me:open%20sesame@host"},
			says: errors.Join(Invalid("secret", `near "sesame@host", in "other"`), Invalid("plain", "next to open sesame and amqp://me:open%%20sesame@host"), nil),
			want: []string{`x.secret: near [redacted], in "other"`, "x.plain: next to [redacted] and [redacted]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			set := testSet()
			set.Register("shape", Info{Name: "judged", Summary: "Judged.", New: func() any { return &judged{says: test.says} }})
			d := Decoder{Set: set}
			tree := map[string]any{"type": "judged"}
			for key, v := range test.tree {
				tree[key] = v
			}
			d.Plugin("shape", "x", tree)
			var got []string
			for _, p := range d.Problems {
				got = append(got, p.Path+": "+p.Message)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"prefetch", "retry", "poison", "to", "topic", "max"}
	for word, want := range map[string]string{
		"prefech": "prefetch", "PREFETCH": "prefetch", "rtery": "retry", "poisn": "poison", "ot": "to", "tpoic": "topic", "maximum": "max",
		"pre": "prefetch", "nothing": "", "": "", strings.Repeat("prefetch", 100): "prefetch", "x": "",
	} {
		if got := spelling.Nearest(word, candidates); got != want {
			t.Errorf("spelling.Nearest(%.20q) = %q, want %q", word, got, want)
		}
	}
}

func TestHides(t *testing.T) {
	for _, test := range []struct {
		of   reflect.Type
		want bool
	}{
		{reflect.TypeFor[hidden](), true}, {reflect.TypeFor[[]hidden](), true}, {reflect.TypeFor[map[string]*hidden](), true},
		{reflect.TypeFor[string](), false}, {reflect.TypeFor[target](), false}, {reflect.TypeFor[time.Time](), false},
	} {
		if got := hidesText(test.of); got != test.want {
			t.Errorf("hides(%v) = %v", test.of, got)
		}
	}
}

var _ encoding.TextMarshaler = hidden("")
