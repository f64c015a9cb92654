package plugin

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/spelling"
)

const durationShape = `a number with a unit, such as "5s", "100ms" or "1h30m"`

// decodeScalar decodes one value into a string, bool, number or duration.
func (d *Decoder) decodeScalar(path string, v any, rv reflect.Value, s spec) bool {
	if rv.Type() == durationType {
		return d.decodeDuration(path, v, rv, s)
	}
	switch rv.Kind() {
	case reflect.String:
		return d.decodeString(path, v, rv, s)
	case reflect.Bool:
		b, ok := v.(bool)
		if sub, is := v.(Substituted); is && sub.Whole && (sub.Text == "true" || sub.Text == "false") {
			b, ok = sub.Text == "true", true
		}
		if !ok {
			d.reportWrongKind(path, v, "true or false", rv.Type(), s)
			return false
		}
		rv.SetBool(b)
		return true
	case reflect.Float32, reflect.Float64:
		return d.decodeFloat(path, v, rv, s)
	default:
		return d.decodeInteger(path, v, rv, s)
	}
}

// reportWrongKind reports that v doesn't have the wanted type. For a substitution it says what the
// string would have to be.
func (d *Decoder) reportWrongKind(path string, v any, want string, t reflect.Type, s spec) {
	what := kindOf(v) + " can't stand here"
	if sub, ok := v.(Substituted); ok && !s.secret {
		_, shown, _ := textOf(sub)
		what = shown + " can't stand here"
	}
	d.addMeantProblem(path, what, want, meantValue(v, t, s))
}

// addMeantProblem adds a problem and the value that was probably meant, as TOML writes it.
func (d *Decoder) addMeantProblem(path, what, allowed, meant string) {
	d.addProblem(path, what, allowed, "")
	if meant != "" {
		d.Problems[len(d.Problems)-1].Message += "; did you mean " + meant + "?"
	}
}

// decodeString decodes a string and checks it against the tags of the field.
func (d *Decoder) decodeString(path string, v any, rv reflect.Value, s spec) bool {
	text, shown, ok := textOf(v)
	if !ok {
		d.reportWrongKind(path, v, "a string"+formOf(rv.Type())+exampleOf(s), rv.Type(), s)
		return false
	}
	d.noteSecret(path, v, s)
	if s.secret {
		shown = "the value"
	}
	if escape := redact.Unescaped(text); escape != "" && slices.Contains(urlKeys, s.key) {
		d.addProblem(path, "the user part of the URL has a character that must be escaped: write "+escape, "", "")
		return false
	}
	if len(s.schemes) > 0 && text != "" {
		if err := CheckURL(text, s.schemes); err != nil {
			d.addProblem(path, err.Error(), "", "")
			return false
		}
	}
	if s.required && text == "" {
		d.addProblem(path, "empty: "+purposeOf(s), "", "")
		return false
	}
	if !d.checkEnum(path, text, shown, s) || !d.checkLength(path, utf8.RuneCountInString(text), "characters", s) {
		return false
	}
	rv.SetString(text)
	d.noteReference(path, text, shown, rv)
	return true
}

// formOf returns the format of strings of a type, if the type has one.
func formOf(t reflect.Type) string {
	if t.Implements(referenceType) && reflect.Zero(t).Interface().(Reference).References() == "topic" {
		return " of the form transport:topic,"
	}
	return ""
}

func (d *Decoder) checkEnum(path, text, shown string, s spec) bool {
	if len(s.enum) == 0 || slices.Contains(s.enum, text) {
		return true
	}
	what, meant := shown+" is not known", ""
	switch {
	case slices.Contains(s.later, text):
		what = shown + " is not built yet in this version"
	case !s.secret:
		meant = spelling.Nearest(text, s.enum)
	}
	d.addProblem(path, what, strings.Join(s.enum, ", "), meant)
	return false
}

func (d *Decoder) decodeDuration(path string, v any, rv reflect.Value, s spec) bool {
	text, shown, ok := textOf(v)
	if !ok {
		d.addMeantProblem(path, kindOf(v)+" is not a duration", durationShape, meantValue(v, rv.Type(), s))
		return false
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		d.addMeantProblem(path, shown+" is not a duration", durationShape, meantValue(v, rv.Type(), s))
		return false
	}
	lowest, highest := time.Duration(0), time.Duration(math.MaxInt64)
	if s.min != "" {
		lowest = mustDuration(s, "min", s.min)
	}
	if s.max != "" {
		highest = mustDuration(s, "max", s.max)
	}
	if parsed < lowest || parsed > highest {
		s.unit = ""
		if s.min == "" {
			s.min = "0s"
		}
		d.reportOutOfRange(path, shown, parsed < lowest, s)
		return false
	}
	rv.SetInt(int64(parsed))
	return true
}

func mustDuration(s spec, tag, value string) time.Duration {
	parsed, err := time.ParseDuration(value)
	if err != nil {
		panic(badTag(s, tag, value, err))
	}
	return parsed
}

func (d *Decoder) decodeInteger(path string, v any, rv reflect.Value, s spec) bool {
	i, ok := v.(int64)
	shown := strconv.FormatInt(i, 10)
	if sub, is := v.(Substituted); is && sub.Whole {
		parsed, err := strconv.ParseInt(sub.Text, 10, 64)
		_, shown, _ = textOf(sub)
		i, ok = parsed, err == nil
	}
	if !ok {
		d.reportWrongKind(path, v, "an integer"+rangeOf(s), rv.Type(), s)
		return false
	}
	low := s.min != "" && i < int64(mustNumber(s, "min", s.min))
	high := s.max != "" && i > int64(mustNumber(s, "max", s.max))
	unsigned := rv.CanUint()
	if !low && !high {
		fits := !unsigned && !rv.OverflowInt(i) || unsigned && i >= 0 && !rv.OverflowUint(uint64(i))
		low, high = !fits && i < 0, !fits && i >= 0
		if unsigned && s.min == "" {
			s.min = "0"
		}
	}
	if low || high {
		d.reportOutOfRange(path, shown, low, s)
		return false
	}
	if unsigned {
		rv.SetUint(uint64(i))
	} else {
		rv.SetInt(i)
	}
	return true
}

func (d *Decoder) decodeFloat(path string, v any, rv reflect.Value, s spec) bool {
	f, ok := v.(float64)
	if i, is := v.(int64); is {
		f, ok = float64(i), true
	}
	shown := strconv.FormatFloat(f, 'g', -1, 64)
	if sub, is := v.(Substituted); is && sub.Whole {
		parsed, err := strconv.ParseFloat(sub.Text, 64)
		_, shown, _ = textOf(sub)
		f, ok = parsed, err == nil
	}
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		d.reportWrongKind(path, v, "a finite number"+rangeOf(s), rv.Type(), s)
		return false
	}
	low := s.min != "" && f < mustNumber(s, "min", s.min)
	if low || s.max != "" && f > mustNumber(s, "max", s.max) {
		d.reportOutOfRange(path, shown, low, s)
		return false
	}
	rv.SetFloat(f)
	return true
}

func mustNumber(s spec, tag, value string) float64 {
	f, err := strconv.ParseFloat(value, 64)
	if err != nil {
		panic(badTag(s, tag, value, err))
	}
	return f
}

// checkLength compares a length with min and max.
func (d *Decoder) checkLength(path string, n int, unit string, s spec) bool {
	low := s.min != "" && float64(n) < mustNumber(s, "min", s.min) || s.required && n == 0
	high := s.max != "" && float64(n) > mustNumber(s, "max", s.max)
	if !low && !high {
		return true
	}
	if s.min == "" && s.required {
		s.min = "1"
	}
	s.unit = unit
	d.reportOutOfRange(path, fmt.Sprintf("a length of %d", n), low, s)
	return false
}

func (d *Decoder) reportOutOfRange(path, shown string, low bool, s spec) {
	what := shown + " is too large"
	if low {
		what = shown + " is too small"
	}
	d.addProblem(path, what, strings.TrimPrefix(rangeOf(s), " "), "")
}

// rangeOf formats min and max.
func rangeOf(s spec) string {
	unit := ""
	if s.unit != "" {
		unit = " " + s.unit
	}
	switch {
	case s.min != "" && s.max != "":
		return " from " + s.min + " to " + s.max + unit
	case s.min != "":
		return " from " + s.min + unit
	case s.max != "":
		return " up to " + s.max + unit
	default:
		return ""
	}
}
