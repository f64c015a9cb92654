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

// variables has the names of the parts of a message, with their types.
var variables = types.Map{
	"id": types.String, "key": types.String, "device": types.String, "topic": types.String,
	"meta": types.TypeOf(map[string]string{}), "text": types.String, "size": types.Int, "json": types.Any,
}

// A function is implemented by the host. Most functions here replace one of the language, because
// they count before they make a value.
type function struct {
	run   func(in *Input, args []any) (any, error)
	types []any
}

var functions = map[string]function{
	"now":   {func(in *Input, _ []any) (any, error) { return in.currentTime(), nil }, []any{new(func() time.Time)}},
	"lines": {lines, []any{new(func(string) []string)}},
	"string": {func(in *Input, args []any) (any, error) {
		text, err := in.formatText(args[0])
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
		if err := in.spendSteps(len(text) / decodedPerStep); err != nil {
			return nil, err
		}
		v, err := in.decode(text, &reads{all: true})
		if err != nil {
			return nil, fmt.Errorf("fromJSON: %w", err)
		}
		return v, nil
	}, []any{new(func(string) any)}},
	"split":      {splitWith(strings.SplitN), []any{new(func(string, string, int) []string), new(func(string, string) []string)}},
	"splitAfter": {splitWith(strings.SplitAfterN), []any{new(func(string, string, int) []string), new(func(string, string) []string)}},
	"trim":       {trim, []any{new(func(string, string) string), new(func(string) string)}},
	"repeat":     {repeat, []any{new(func(string, int) string)}},
	"replace":    {replace, []any{new(func(string, string, string, int) string), new(func(string, string, string) string)}},
	"join": {join, []any{
		new(func([]any) string), new(func([]any, string) string), new(func([]string) string), new(func([]string, string) string),
	}},
}

// cost says which steps a function of the language takes in addition to its call.
type cost int

const (
	// cheap: the time doesn't depend on the arguments, or the language's machine counts it.
	cheap cost = iota
	// linear: it reads its arguments without the content of their elements.
	linear
	// makes: it is linear, and makes a string or list.
	makes
	// counts: it reads a string; a list or map takes no time.
	counts
	// deep: it reads its arguments with all their content.
	deep
	// searched: it is deep for a list. A map finds its keys at once.
	searched
	// sorted: it compares each element with some others.
	sorted
	// squared: it compares each element with every other.
	squared
	// zone: it may read a time zone from a file.
	zone
)

// counters has the host's functions that count these costs. Each returns its argument.
var counters = map[cost]string{
	linear: costs, makes: costs, counts: counted + "counts", deep: counted + "deep", searched: counted + "searched",
	sorted: counted + "sorted", squared: counted + "squared", zone: counted + "zone",
}

// builtins has the functions of the language that are enabled. All others are disabled.
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

// language returns the options of both compilations.
func language() []expr.Option {
	options := []expr.Option{expr.Env(variables), expr.DisableAllBuiltins()}
	for name := range builtins {
		options = append(options, expr.EnableBuiltin(name))
	}
	return options
}

// declared returns the options for an expression as it is written.
func declared() []expr.Option {
	options := language()
	for name, f := range functions {
		options = append(options, expr.Function(name, func(...any) (any, error) { return nil, nil }, f.types...))
	}
	return options
}

// counting returns the options for an expression that the [patcher] has changed. The first
// argument of each function is the [Input].
func counting() []expr.Option {
	options := language()
	hosted := func(name string, run func(in *Input, args []any) (any, error)) {
		options = append(options, expr.Function(name, func(args ...any) (any, error) { return run(args[0].(*Input), args[1:]) }))
	}
	for name, f := range functions {
		// The parser must know the original name, too. Otherwise it would take the name for a
		// function of the language.
		hosted(name, f.run)
		hosted(counted+name, f.run)
	}
	for name := range variables {
		hosted(counted+name, func(in *Input, _ []any) (any, error) { return in.variable(name) })
	}
	hosted(step, func(in *Input, _ []any) (any, error) { return nil, in.spendSteps(1) })
	for kind, name := range counters {
		hosted(name, func(in *Input, args []any) (any, error) { return args[0], in.countCost(kind, args[0]) })
	}
	hosted(made, func(in *Input, args []any) (any, error) { return args[0], in.countBytes(bytesOf(args[0])) })
	hosted(whole, func(in *Input, args []any) (any, error) { return args[0], in.countMade(args[0]) })
	hosted(entry, func(in *Input, args []any) (any, error) {
		if err := in.spendSteps(textLength(args[0]) / bytesPerStep); err != nil {
			return nil, err
		}
		return args[0], in.countMemory(mapSize)
	})
	hosted(sortKey, func(in *Input, args []any) (any, error) {
		return args[0], in.spendSteps(1 + compared*textLength(args[0])/bytesPerStep)
	})
	hosted(matches, matchPattern)
	hosted(add, addOrJoin)
	return options
}

// addOrJoin implements the operator +, which also joins strings.
func addOrJoin(in *Input, args []any) (any, error) {
	if a, ok := args[0].(string); ok {
		if b, ok := args[1].(string); ok {
			if err := in.countBytes(len(a) + len(b)); err != nil {
				return nil, err
			}
			return a + b, nil
		}
	}
	return runtime.Add(args[0], args[1]), nil
}

// stringArg returns argument i, which must be a string.
func stringArg(args []any, i int) (string, error) {
	s, ok := args[i].(string)
	if !ok {
		return "", fmt.Errorf("%s is in a place where a string is needed", nameOf(args[i]))
	}
	return s, nil
}

// nameOf returns the type of a value for error texts.
func nameOf(v any) string {
	if v == nil {
		return "nil"
	}
	if _, ok := v.(json.Number); ok {
		return "a " + exactNumber
	}
	return kindName(reflect.TypeOf(v).Kind())
}

// lines returns the lines of a text without their ends. A line feed at the end of the text doesn't
// begin another line.
func lines(in *Input, args []any) (any, error) {
	text, err := stringArg(args, 0)
	if err != nil {
		return nil, err
	}
	n := strings.Count(text, "\n") + 1
	if err := in.spendSteps(len(text) / bytesPerStep); err != nil {
		return nil, err
	}
	if err := in.countBytes(n * elementSize); err != nil {
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
		return nil, in.countBytes(in.env.limits.Bytes + 1)
	}
	if err := in.countBytes(len(s) * n); err != nil {
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
	if err := in.spendSteps(readSteps(text)); err != nil {
		return nil, err
	}
	n := strings.Count(text, before)
	if most >= 0 {
		n = min(n, most)
	}
	// There are at most 2^24 places of at most the limit each, so this can't overflow.
	if err := in.countBytes(len(text) + n*max(0, len(after)-len(before))); err != nil {
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
	if err := in.spendSteps(readSteps(args[0])); err != nil {
		return nil, err
	}
	list, ok := args[0].([]string)
	if !ok {
		elements := reflect.ValueOf(args[0])
		if elements.Kind() != reflect.Slice && elements.Kind() != reflect.Array {
			return nil, fmt.Errorf("join: %s is in a place where a list is needed", nameOf(args[0]))
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
	if err := in.countBytes(size); err != nil {
		return nil, err
	}
	return strings.Join(list, between), nil
}

// splitWith returns the function split or splitAfter. split is the language's implementation,
// which also takes the greatest number of pieces.
func splitWith(split func(text, between string, most int) []string) func(in *Input, args []any) (any, error) {
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
		if err := in.spendSteps(readSteps(text)); err != nil {
			return nil, err
		}
		n := strings.Count(text, between) + 1
		if most >= 0 {
			n = min(n, most)
		}
		if err := in.countBytes(n * elementSize); err != nil {
			return nil, err
		}
		return split(text, between, most), nil
	}
}

// trim cuts characters off both ends. It searches each character of the text in the set, so its
// cost is their product.
func trim(in *Input, args []any) (any, error) {
	text, err := stringArg(args, 0)
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		return strings.TrimSpace(text), in.spendSteps(readSteps(text))
	}
	set, err := stringArg(args, 1)
	if err != nil {
		return nil, err
	}
	if err := in.spendSteps(readSteps(text) + readSteps(set) + len(text)*len(set)/cutPerStep); err != nil {
		return nil, err
	}
	return strings.Trim(text, set), nil
}

// A compiledPattern is a regular expression that is a constant in an expression.
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

// matchPattern implements the operator matches.
func matchPattern(in *Input, args []any) (any, error) {
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
		// A pattern that isn't constant is compiled for each message.
		if err := in.spendSteps(readSteps(source) + re.size); err != nil {
			return nil, err
		}
	}
	if err := in.spendSteps(1 + len(text)*re.size/matchedPerStep); err != nil {
		return nil, err
	}
	return re.MatchString(text), nil
}
