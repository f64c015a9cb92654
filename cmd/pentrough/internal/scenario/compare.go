package scenario

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/jsontext"
)

// expectation is the expect table of a step.
type expectation struct{ *configs.TestExpect }

// differences describes how something that came out differs from what is expected.
func (e expectation) differences(one *seen) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if e.Payload != nil {
		if want, _ := configs.DecodePayload(e.Encoding, *e.Payload); !bytes.Equal(want, one.payload) {
			add("payload: expected %s, got %s", show(want), show(one.payload))
		}
	}
	var body any
	bad := jsontext.Unmarshal(one.payload, &body)
	if e.JSON != nil {
		if bad != nil {
			add("payload: expected JSON, got %s", show(one.payload))
		} else {
			all = append(all, jsonDifferences("", plain(e.JSON), body)...)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(e.Metadata)) {
		if got, ok := one.metadata[key]; !ok {
			add("metadata.%s: expected %q, got none", key, e.Metadata[key])
		} else if got != e.Metadata[key] {
			add("metadata.%s: expected %q, got %q", key, e.Metadata[key], got)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(e.Matches)) {
		got, ok := one.valueAt(path, body)
		if !ok {
			add("%s: expected something like %q, got none", path, e.Matches[path])
		} else if !regexp.MustCompile(e.Matches[path]).MatchString(got) {
			add("%s: expected something like %q, got %q", path, e.Matches[path], got)
		}
	}
	for _, path := range e.Absent {
		if got, ok := one.valueAt(path, body); ok {
			add("%s: expected none, got %q", path, got)
		}
	}
	if e.Code != 0 && e.Code != one.code {
		add("code: expected %d, got %d", e.Code, one.code)
	}
	return all
}

// valueAt returns the value at a path of [configs.TestExpect.Matches], as text.
func (s *seen) valueAt(path string, body any) (string, bool) {
	switch {
	case path == "payload":
		return string(s.payload), true
	case path == "error":
		if s.err == nil {
			return "", false
		}
		return s.err.Error(), true
	case strings.HasPrefix(path, configs.MetadataPath):
		got, ok := s.metadata[strings.TrimPrefix(path, configs.MetadataPath)]
		return got, ok
	}
	for _, key := range strings.Split(strings.TrimPrefix(path, configs.JSONPath), ".") {
		switch in := body.(type) {
		case map[string]any:
			v, ok := in[key]
			if !ok {
				return "", false
			}
			body = v
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(in) {
				return "", false
			}
			body = in[i]
		default:
			return "", false
		}
	}
	if text, ok := body.(string); ok {
		return text, true
	}
	return jsonText(body), true
}

// plain returns a value of a TOML file in the form that JSON has.
func plain(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var out any
	if err := jsontext.Unmarshal(text, &out); err != nil {
		return v
	}
	return out
}

// jsonDifferences describes where got differs from want. A table may have more keys than wanted. A
// list must have the same number of elements.
func jsonDifferences(path string, want, got any) []string {
	where := path
	if where == "" {
		where = "payload"
	}
	switch want := want.(type) {
	case map[string]any:
		table, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s: expected an object, got %s", where, jsonText(got))}
		}
		var all []string
		for _, key := range slices.Sorted(maps.Keys(want)) {
			at := strings.TrimPrefix(path+"."+key, ".")
			if v, ok := table[key]; ok {
				all = append(all, jsonDifferences(at, want[key], v)...)
			} else {
				all = append(all, fmt.Sprintf("%s: expected %s, got none", at, jsonText(want[key])))
			}
		}
		return all
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return []string{fmt.Sprintf("%s: expected %s, got %s", where, jsonText(want), jsonText(got))}
		}
		var all []string
		for i := range want {
			all = append(all, jsonDifferences(fmt.Sprintf("%s[%d]", where, i), want[i], list[i])...)
		}
		return all
	case json.Number:
		if n, ok := got.(json.Number); ok && equalNumbers(want, n) {
			return nil
		}
	default:
		if want == got {
			return nil
		}
	}
	return []string{fmt.Sprintf("%s: expected %s, got %s", where, jsonText(want), jsonText(got))}
}

func equalNumbers(a, b json.Number) bool {
	if a == b {
		return true
	}
	x, okX := jsontext.ParseDecimal(a)
	y, okY := jsontext.ParseDecimal(b)
	return okX && okY && x == y
}

// jsonText returns a value as one line of JSON.
func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

// longest is how many bytes of a payload are shown.
const longest = 2000

// show returns a payload as one line: JSON unchanged, other text quoted, and anything else as hex.
func show(payload []byte) string {
	cut := ""
	if len(payload) > longest {
		payload, cut = payload[:longest], fmt.Sprintf("... (%d bytes)", len(payload))
	}
	switch {
	case len(payload) > 1 && payload[0] == '{' && json.Valid(payload) && !bytes.ContainsAny(payload, "\r\n"):
		return string(payload) + cut
	case utf8.Valid(payload):
		return strconv.Quote(string(payload)) + cut
	default:
		return fmt.Sprintf("hex %x", payload) + cut
	}
}

// String describes it in one line.
func (s *seen) String() string {
	var parts []string
	if s.code != 0 {
		parts = append(parts, fmt.Sprintf("code %d", s.code))
	}
	if s.err != nil {
		parts = append(parts, fmt.Sprintf("error %q", s.err.Error()))
	}
	if s.code == 0 || len(s.payload) > 0 {
		parts = append(parts, show(s.payload))
	}
	if len(s.metadata) > 0 {
		keys := slices.Sorted(maps.Keys(s.metadata))
		for i, key := range keys {
			keys[i] = key + "=" + strconv.Quote(s.metadata[key])
		}
		parts = append(parts, "("+strings.Join(keys, " ")+")")
	}
	return strings.Join(parts, " ")
}
