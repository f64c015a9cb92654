package plugin

import (
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// meantValue returns the value that was probably meant by one that doesn't fit a field, as TOML
// writes it. It returns "" if nothing is probable or if the field is a secret. A list of one value
// counts as that value.
func meantValue(v any, t reflect.Type, s spec) string {
	if list, ok := v.([]any); ok && len(list) == 1 && isScalar(t) {
		v = list[0]
		if text, ok := v.(string); ok && t.Kind() == reflect.String && !s.secret {
			return quoteTOML(text)
		}
	}
	if s.secret {
		return ""
	}
	text, _ := v.(string)
	text = strings.TrimSpace(text)
	switch {
	case t == durationType:
		return meantDuration(v)
	case t.Kind() == reflect.Bool:
		return meantBool(v)
	case t.Kind() == reflect.String:
		return meantString(v, s, t)
	case !isScalar(t):
		return ""
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		if f, err := strconv.ParseFloat(strings.Replace(text, ",", ".", 1), 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return strconv.FormatFloat(f, 'f', -1, 64)
		}
		if percent, ok := strings.CutSuffix(text, "%"); ok {
			if f, err := strconv.ParseFloat(strings.TrimSpace(percent), 64); err == nil {
				return strconv.FormatFloat(f/100, 'f', -1, 64)
			}
		}
		return ""
	default:
		return meantInteger(v, text, s)
	}
}

var quantity = regexp.MustCompile(`^([0-9]+(?:[.][0-9]+)?) *([A-Za-z]*)$`)

// byteUnits has the units of sizes. A letter alone stands for a power of 1024, as in the options
// of most programs.
var byteUnits = map[string]float64{
	"b": 1, "byte": 1, "bytes": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}

// meantInteger returns an integer without separators and units.
func meantInteger(v any, text string, s spec) string {
	if f, ok := v.(float64); ok && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	if i, err := strconv.ParseInt(strings.NewReplacer("_", "", ",", "", "'", "").Replace(text), 10, 64); err == nil {
		return strconv.FormatInt(i, 10)
	}
	number := quantity.FindStringSubmatch(text)
	if number == nil {
		return ""
	}
	factor, ok := byteUnits[strings.ToLower(number[2])]
	if s.unit != "bytes" {
		// such as "100 messages" for a setting whose unit is messages
		factor, ok = 1, number[2] != "" && strings.HasPrefix(s.unit, number[2])
	}
	f, err := strconv.ParseFloat(number[1], 64)
	if f *= factor; !ok || err != nil || f != math.Trunc(f) || f >= 1<<53 {
		return ""
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

// meantBool understands the words that other file formats use for true and false.
func meantBool(v any) string {
	if i, ok := v.(int64); ok && (i == 0 || i == 1) {
		return strconv.FormatBool(i == 1)
	}
	text, _ := v.(string)
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "yes", "on", "1", "y", "enabled":
		return "true"
	case "false", "no", "off", "0", "n", "disabled":
		return "false"
	}
	return ""
}

var (
	listenExample = regexp.MustCompile(`^"[^/]*:[0-9]+"$`)
	// durationPart is a number with a unit, optionally after "and" or a comma.
	durationPart = regexp.MustCompile(`^(?:and|,)? *([0-9]+(?:[.,][0-9]+)?) *([A-Za-zµ]*) *`)
)

// meantString returns the string that a value was probably meant to be. It returns "" if only
// certain strings are allowed.
func meantString(v any, s spec, t reflect.Type) string {
	if len(s.enum) > 0 || t.Implements(referenceType) {
		return ""
	}
	switch v := v.(type) {
	case int64:
		if listenExample.MatchString(s.example) && v >= 0 && v <= math.MaxUint16 {
			return quoteTOML(":" + strconv.FormatInt(v, 10))
		}
		return quoteTOML(strconv.FormatInt(v, 10))
	case float64:
		return quoteTOML(strconv.FormatFloat(v, 'f', -1, 64))
	case bool:
		return quoteTOML(strconv.FormatBool(v))
	}
	return ""
}

var durationUnits = map[string]time.Duration{
	"ns": 1, "us": time.Microsecond, "µs": time.Microsecond,
	"ms": time.Millisecond, "msec": time.Millisecond, "msecs": time.Millisecond, "milli": time.Millisecond, "millis": time.Millisecond, "millisecond": time.Millisecond, "milliseconds": time.Millisecond,
	"s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second, "": time.Second,
	"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hrs": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour, "w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
}

// meantDuration understands "5 minutes", "1 day and 2 hours" and "1,5h". A number alone stands for
// seconds.
func meantDuration(v any) string {
	var text string
	switch v := v.(type) {
	case int64:
		text = strconv.FormatInt(v, 10)
	case float64:
		text = strconv.FormatFloat(v, 'f', -1, 64)
	case string:
		text = strings.TrimSpace(v)
	}
	var sum float64
	for rest := text; rest != ""; {
		part := durationPart.FindStringSubmatch(rest)
		if part == nil {
			return ""
		}
		unit, ok := durationUnits[strings.ToLower(part[2])]
		if !ok || part[2] == "" && part[0] != text {
			return ""
		}
		n, err := strconv.ParseFloat(strings.Replace(part[1], ",", ".", 1), 64)
		if sum += n * float64(unit); err != nil || sum >= math.MaxInt64 {
			return ""
		}
		rest = rest[len(part[0]):]
	}
	if text == "" {
		return ""
	}
	return quoteTOML(Duration(time.Duration(sum)))
}
