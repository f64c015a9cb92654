package expression

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm/runtime"

	"github.com/pentrough/pentrough/internal/pattern"
)

// variables are the names that stand for parts of a message, with their types.
var variables = types.Map{
	"id": types.String, "key": types.String, "device": types.String, "topic": types.String,
	"meta": types.TypeOf(map[string]string{}), "text": types.String, "size": types.Int, "json": types.Any,
}

// A function is the host's own, most in the place of one of the language's: it counts before it makes something.
type function struct {
	run   func(in *Input, args []any) (any, error)
	types []any
}

var functions = map[string]function{
	"now":   {func(in *Input, _ []any) (any, error) { return in.clock(), nil }, []any{new(func() time.Time)}},
	"lines": {lines, []any{new(func(string) []string)}},
	"string": {func(in *Input, args []any) (any, error) {
		text, err := in.format(args[0])
		return text, err
	}, []any{new(func(any) string)}},
	"toJSON": {func(in *Input, args []any) (any, error) {
		data, err := in.encode(args[0])
		return string(data), err
	}, []any{new(func(any) string)}},
	"fromJSON": {func(in *Input, args []any) (any, error) {
		text, err := stringArg(args, 0)
		if err != nil {
			return nil, err
		}
		if err := in.spend(len(text) / decodedPerStep); err != nil {
			return nil, err
		}
		v, err := in.decode(text, &reads{all: true})
		if err != nil {
			return nil, fmt.Errorf("fromJSON: %w", err)
		}
		return v, nil
	}, []any{new(func(string) any)}},
	"split":      {pieces(strings.SplitN), []any{new(func(string, string, int) []string), new(func(string, string) []string)}},
	"splitAfter": {pieces(strings.SplitAfterN), []any{new(func(string, string, int) []string), new(func(string, string) []string)}},
	"trim":       {trim, []any{new(func(string, string) string), new(func(string) string)}},
	"repeat":     {repeat, []any{new(func(string, int) string)}},
	"replace":    {replace, []any{new(func(string, string, string, int) string), new(func(string, string, string) string)}},
	"join": {join, []any{
		new(func([]any) string), new(func([]any, string) string), new(func([]string) string), new(func([]string, string) string),
	}},
}

// What a function of the language costs beside the step that calls it.
type cost int

const (
	// cheap: its time doesn't depend on what it is given, or the machine counts what it makes.
	cheap cost = iota
	// linear: it reads all that it is given, and nothing of what lies in the elements.
	linear
	// makes: it is linear, and makes a string or list.
	makes
	// counts: it reads a string, and nothing of a list or map.
	counts
	// deep: it reads all that is in what it is given.
	deep
	// searched: it is deep for a list. A map finds its keys at once.
	searched
	// sorted: it compares each element with some others.
	sorted
	// squared: it compares each element with each.
	squared
	// zone: it may read a time zone from a file.
	zone
)

// counters are the host's functions that count these costs, and return what they are given.
var counters = map[cost]string{
	linear: costs, makes: costs, counts: counted + "counts", deep: counted + "deep", searched: counted + "searched",
	sorted: counted + "sorted", squared: counted + "squared", zone: counted + "zone",
}

// builtins are all functions of the language; those that aren't here are off.
var builtins = map[string]cost{
	"all": cheap, "none": cheap, "any": cheap, "one": cheap, "filter": cheap, "map": cheap, "find": cheap, "findIndex": cheap, "findLast": cheap,
	"findLastIndex": cheap, "groupBy": cheap, "sortBy": cheap, "reduce": cheap, "count": linear, "sum": linear,
	"len": counts, "type": cheap, "abs": cheap, "ceil": cheap, "floor": cheap, "round": cheap, "int": linear, "float": linear,
	"trimPrefix": linear, "trimSuffix": linear, "hasPrefix": linear, "hasSuffix": linear, "indexOf": linear, "lastIndexOf": linear,
	"upper": makes, "lower": makes, "toBase64": makes, "fromBase64": makes,
	"max": deep, "min": deep, "mean": deep, "median": deep, "sort": sorted, "reverse": linear, "concat": linear, "flatten": deep,
	"uniq": squared, "keys": makes, "values": makes, "toPairs": makes, "fromPairs": makes,
	"first": cheap, "last": cheap, "get": cheap, "take": cheap, "date": linear, "duration": linear, "timezone": zone,
	"bitand": cheap, "bitor": cheap, "bitxor": cheap, "bitnand": cheap, "bitshl": cheap, "bitshr": cheap, "bitushr": cheap, "bitnot": cheap,
}

// language are the options that both compilations share.
func language() []expr.Option {
	options := []expr.Option{expr.Env(variables), expr.DisableAllBuiltins()}
	for name := range builtins {
		options = append(options, expr.EnableBuiltin(name))
	}
	return options
}

// declared are the options for an expression as it is written.
func declared() []expr.Option {
	options := language()
	for name, f := range functions {
		options = append(options, expr.Function(name, func(...any) (any, error) { return nil, nil }, f.types...))
	}
	return options
}

// counting are the options for an expression that went through a [patcher]: each function's first argument is the [Input].
func counting() []expr.Option {
	options := language()
	hosted := func(name string, run func(in *Input, args []any) (any, error)) {
		options = append(options, expr.Function(name, func(args ...any) (any, error) { return run(args[0].(*Input), args[1:]) }))
	}
	for name, f := range functions {
		// The name as it is written must be known for the parser to see that it isn't the language's own.
		hosted(name, f.run)
		hosted(counted+name, f.run)
	}
	for name := range variables {
		hosted(counted+name, func(in *Input, _ []any) (any, error) { return in.variable(name) })
	}
	hosted(step, func(in *Input, _ []any) (any, error) { return nil, in.spend(1) })
	for kind, name := range counters {
		hosted(name, func(in *Input, args []any) (any, error) { return args[0], in.count(kind, args[0]) })
	}
	hosted(made, func(in *Input, args []any) (any, error) { return args[0], in.grow(bytesOf(args[0])) })
	hosted(whole, func(in *Input, args []any) (any, error) { return args[0], in.whole(args[0]) })
	hosted(entry, func(in *Input, args []any) (any, error) {
		if err := in.spend(textLength(args[0]) / bytesPerStep); err != nil {
			return nil, err
		}
		return args[0], in.keep(mapSize)
	})
	hosted(sortKey, func(in *Input, args []any) (any, error) {
		return args[0], in.spend(1 + compared*textLength(args[0])/bytesPerStep)
	})
	hosted(matches, match)
	hosted(add, plus)
	return options
}

// plus is the operator +, which joins strings too.
func plus(in *Input, args []any) (any, error) {
	if a, ok := args[0].(string); ok {
		if b, ok := args[1].(string); ok {
			if err := in.grow(len(a) + len(b)); err != nil {
				return nil, err
			}
			return a + b, nil
		}
	}
	return runtime.Add(args[0], args[1]), nil
}

func stringArg(args []any, i int) (string, error) {
	s, ok := args[i].(string)
	if !ok {
		return "", fmt.Errorf("%s stands where a string is needed", nameOf(args[i]))
	}
	return s, nil
}

func nameOf(v any) string {
	if v == nil {
		return "nil"
	}
	if _, ok := v.(json.Number); ok {
		return "a " + exactNumber
	}
	return kindName(reflect.TypeOf(v).Kind())
}

// lines are the lines of a text, without their ends; the end of the last one begins no other.
func lines(in *Input, args []any) (any, error) {
	text, err := stringArg(args, 0)
	if err != nil {
		return nil, err
	}
	n := strings.Count(text, "\n") + 1
	if err := in.spend(len(text) / bytesPerStep); err != nil {
		return nil, err
	}
	if err := in.grow(n * elementSize); err != nil {
		return nil, err
	}
	list := make([]string, 0, n)
	for line := range strings.Lines(text) {
		list = append(list, strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"))
	}
	return list, nil
}

func repeat(in *Input, args []any) (any, error) {
	s, err := stringArg(args, 0)
	if err != nil {
		return nil, err
	}
	n := runtime.ToInt(args[1])
	switch {
	case n < 0:
		return nil, fmt.Errorf("repeat: %d times", n)
	case len(s) > 0 && n > in.env.limits.Bytes/len(s):
		return nil, in.grow(in.env.limits.Bytes + 1)
	}
	if err := in.grow(len(s) * n); err != nil {
		return nil, err
	}
	return strings.Repeat(s, n), nil
}

func replace(in *Input, args []any) (any, error) {
	var s [3]string
	for i := range s {
		var err error
		if s[i], err = stringArg(args, i); err != nil {
			return nil, err
		}
	}
	text, before, after, most := s[0], s[1], s[2], -1
	if len(args) > 3 {
		most = runtime.ToInt(args[3])
	}
	if err := in.spend(weight(text)); err != nil {
		return nil, err
	}
	n := strings.Count(text, before)
	if most >= 0 {
		n = min(n, most)
	}
	// At most 2^24 places, each at most the limit: no overflow.
	if err := in.grow(len(text) + n*max(0, len(after)-len(before))); err != nil {
		return nil, err
	}
	return strings.Replace(text, before, after, most), nil
}

func join(in *Input, args []any) (any, error) {
	between := ""
	if len(args) > 1 {
		var err error
		if between, err = stringArg(args, 1); err != nil {
			return nil, err
		}
	}
	if err := in.spend(weight(args[0])); err != nil {
		return nil, err
	}
	list, ok := args[0].([]string)
	if !ok {
		elements := reflect.ValueOf(args[0])
		if elements.Kind() != reflect.Slice && elements.Kind() != reflect.Array {
			return nil, fmt.Errorf("join: %s stands where a list is needed", nameOf(args[0]))
		}
		list = make([]string, elements.Len())
		for i := range list {
			s, ok := elements.Index(i).Interface().(string)
			if !ok {
				return nil, fmt.Errorf("join: element %d is %s; allowed: strings", i, nameOf(elements.Index(i).Interface()))
			}
			list[i] = s
		}
	}
	size := max(0, len(list)-1) * len(between)
	for s := range slices.Values(list) {
		size += len(s)
	}
	if err := in.grow(size); err != nil {
		return nil, err
	}
	return strings.Join(list, between), nil
}

// pieces makes split of the language's way to split, which takes how many pieces there may be.
func pieces(split func(text, between string, most int) []string) func(in *Input, args []any) (any, error) {
	return func(in *Input, args []any) (any, error) {
		text, err := stringArg(args, 0)
		if err != nil {
			return nil, err
		}
		between, err := stringArg(args, 1)
		if err != nil {
			return nil, err
		}
		most := -1
		if len(args) > 2 {
			most = runtime.ToInt(args[2])
		}
		if err := in.spend(weight(text)); err != nil {
			return nil, err
		}
		n := strings.Count(text, between) + 1
		if most >= 0 {
			n = min(n, most)
		}
		if err := in.grow(n * elementSize); err != nil {
			return nil, err
		}
		return split(text, between, most), nil
	}
}

// trim looks for each character at both ends in the set of those that it cuts off.
func trim(in *Input, args []any) (any, error) {
	text, err := stringArg(args, 0)
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		return strings.TrimSpace(text), in.spend(weight(text))
	}
	set, err := stringArg(args, 1)
	if err != nil {
		return nil, err
	}
	if err := in.spend(weight(text) + weight(set) + len(text)*len(set)/cutPerStep); err != nil {
		return nil, err
	}
	return strings.Trim(text, set), nil
}

// A compiledPattern is a regular expression that an expression spells out.
type compiledPattern struct {
	*regexp.Regexp
	size int
}

func compilePattern(text string) (*compiledPattern, error) {
	re, size, err := pattern.Compile(text)
	if err != nil {
		return nil, err
	}
	return &compiledPattern{re, size}, nil
}

// match is the operator matches.
func match(in *Input, args []any) (any, error) {
	if args[0] == nil || args[1] == nil {
		return false, nil
	}
	text, err := stringArg(args, 0)
	if err != nil {
		return nil, err
	}
	re, ok := args[1].(*compiledPattern)
	if !ok {
		source, err := stringArg(args, 1)
		if err != nil {
			return nil, err
		}
		if len(source) > maxSource {
			return nil, fmt.Errorf("the regular expression has %d bytes; allowed: up to %d", len(source), maxSource)
		}
		if re, err = compilePattern(source); err != nil {
			return nil, err
		}
		// It is compiled for each message.
		if err := in.spend(weight(source) + re.size); err != nil {
			return nil, err
		}
	}
	if err := in.spend(1 + len(text)*re.size/matchedPerStep); err != nil {
		return nil, err
	}
	return re.MatchString(text), nil
}
