package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// line is one line of the plugin: a JSON object with a type.
type line struct {
	kind string
	keys map[string]any
}

// lineError reports that a line violates the protocol, and by which rule.
type lineError struct{ what, rule string }

func (b *lineError) Error() string { return b.what }

// protocolError returns a lineError with the rule that the line violates.
func protocolError(rule, format string, args ...any) error {
	return &lineError{fmt.Sprintf(format, args...), rule}
}

// parseLine parses a line of a plugin by the rules for every line.
func parseLine(raw []byte, longest int) (line, error) {
	text, ok := bytes.CutSuffix(raw, []byte("\n"))
	switch {
	case !ok && len(raw) >= longest:
		return line{}, protocolError(ruleHostLine, "a line of more than %d bytes", longest)
	case !ok:
		return line{}, protocolError(ruleLine, "a line without a line feed at its end")
	case len(text) > longest:
		return line{}, protocolError(ruleHostLine, "a line of %d bytes; the host accepts %d", len(text), longest)
	case len(bytes.Trim(text, " \t\r")) == 0:
		return line{}, nil
	}
	// A value of another type is JSON, too.
	var keys map[string]any
	if token, _, err := jsontext.Find(text, nil); err == nil && token.Kind != '{' {
		return line{}, protocolError(ruleLine, "a line that isn't a JSON object: %s", shorten(string(text)))
	}
	switch err := jsontext.Unmarshal(text, &keys); {
	case errors.Is(err, jsontext.ErrUTF8):
		return line{}, protocolError(ruleLine, "a line that isn't UTF-8")
	case errors.Is(err, jsontext.ErrSurrogate):
		return line{}, protocolError(ruleBoth, "a line with half of a surrogate pair")
	case err != nil:
		return line{}, protocolError(ruleLine, "a line that isn't a JSON object: %v", err)
	case keys == nil:
		return line{}, protocolError(ruleLine, "a line that isn't a JSON object")
	}
	kind, ok := keys["type"].(string)
	if !ok {
		return line{}, protocolError(ruleType, "a line without a type")
	}
	return line{kind, keys}, nil
}

// intField returns a number that must be whole and at least lowest.
func (l line) intField(key string, lowest int64, rule string) (int64, error) {
	n, ok := l.keys[key].(json.Number)
	v, err := n.Int64()
	if !ok || err != nil || v < lowest {
		return 0, protocolError(rule, "`%s` of a `%s` is %s, not a whole number of at least %d in digits", key, l.kind, formatValue(l.keys[key]), lowest)
	}
	return v, nil
}

// formatValue returns a value as JSON, for messages.
func formatValue(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return shorten(string(text))
}

// stringField returns a string, or "" if the key is optional and missing.
func (l line) stringField(key string, required bool, rule string) (string, error) {
	v, there := l.keys[key]
	s, ok := v.(string)
	if there && !ok || required && s == "" {
		return "", protocolError(rule, "`%s` of a `%s` is %s; allowed: a string", key, l.kind, formatValue(v))
	}
	return s, nil
}

// hello is the content of a plugin's hello.
type hello struct {
	window, maxLine int
	features        []string
	schema          any
}

func (h hello) hasFeature(feature string) bool { return slices.Contains(h.features, feature) }

func (l line) hello() (hello, error) {
	h := hello{window: hostWindow, maxLine: hostMaxLine, schema: l.keys["schema"]}
	version, err := l.intField("version", 1, ruleVersion)
	if err != nil {
		return h, err
	}
	if version != 1 {
		return h, protocolError(ruleVersion, "it chose version %d, which the host doesn't speak", version)
	}
	if _, err := l.stringField("name", true, ruleName); err != nil {
		return h, err
	}
	if _, ok := l.keys["features"]; ok {
		list, ok := l.keys["features"].([]any)
		for _, f := range list {
			feature, is := f.(string)
			ok = ok && is
			h.features = append(h.features, feature)
		}
		if !ok {
			return h, protocolError(ruleFeatures, "`features` are %s, not a list of strings", formatValue(l.keys["features"]))
		}
	}
	if _, ok := l.keys["window"]; ok {
		w, err := l.intField("window", 1, ruleWindow)
		if err != nil {
			return h, err
		}
		h.window = int(min(w, hostWindow))
	}
	if _, ok := l.keys["max_line"]; ok {
		m, err := l.intField("max_line", 65536, ruleMaxLine)
		if err != nil {
			return h, err
		}
		h.maxLine = int(min(m, 1<<30))
	}
	return h, nil
}

// problem is one problem of a refusal.
type problem struct{ key, text string }

func (l line) refusal() (text string, problems []problem, err error) {
	if text, err = l.stringField("text", false, ruleRefuse); err != nil {
		return "", nil, err
	}
	list, ok := l.keys["problems"].([]any)
	if _, there := l.keys["problems"]; there && !ok {
		return "", nil, protocolError(ruleProblems, "`problems` are %s", formatValue(l.keys["problems"]))
	}
	for _, e := range list {
		m, _ := e.(map[string]any)
		key, isString := m["key"].(string)
		_, there := m["key"]
		why, _ := m["text"].(string)
		if why == "" || there && !isString {
			return "", nil, protocolError(ruleProblems, "a problem is %s", formatValue(e))
		}
		problems = append(problems, problem{key, why})
	}
	if text == "" && len(problems) == 0 {
		return "", nil, protocolError(ruleRefuse, "a refusal without a reason")
	}
	return text, problems, nil
}

// outputMessage is a message in a response.
type outputMessage struct {
	id, to   string
	payload  []byte
	metadata map[string]string
}

// response is the content of a response line.
type response struct {
	id         int64
	messages   []outputMessage
	failed     bool
	kind, text string
	retryAfter int64
}

func (l line) response() (r response, err error) {
	if r.id, err = l.intField("id", 1, ruleIDs); err != nil {
		return r, err
	}
	if e, ok := l.keys["error"]; ok && e != nil {
		m, isObject := e.(map[string]any)
		if !isObject {
			return r, protocolError(ruleError, "`error` is %s; allowed: an object", formatValue(e))
		}
		inner := line{"response's error", m}
		r.failed = true
		if r.kind, err = inner.stringField("kind", false, ruleError); err != nil {
			return r, err
		}
		if r.text, err = inner.stringField("text", false, ruleError); err != nil {
			return r, err
		}
		if _, ok := m["retry_after_ms"]; ok {
			if r.retryAfter, err = inner.intField("retry_after_ms", 0, ruleError); err != nil {
				return r, err
			}
		}
	}
	list, ok := l.keys["messages"].([]any)
	if v, there := l.keys["messages"]; there && v != nil && !ok {
		return r, protocolError(ruleMessages, "`messages` are %s; allowed: a list", formatValue(v))
	}
	for _, e := range list {
		m, err := messageOf(e)
		if err != nil {
			return r, err
		}
		r.messages = append(r.messages, m)
	}
	return r, nil
}

func messageOf(v any) (p outputMessage, err error) {
	keys, ok := v.(map[string]any)
	if !ok {
		return p, protocolError(ruleMessage, "a message is %s; allowed: an object", formatValue(v))
	}
	l := line{"message", keys}
	_, plain := keys["payload"]
	_, coded := keys["payload_b64"]
	if plain && coded {
		return p, protocolError(ruleBoth, "a message has `payload` and `payload_b64`")
	}
	text, err := l.stringField("payload", false, ruleMessage)
	if err != nil {
		return p, err
	}
	p.payload = []byte(text)
	if coded {
		text, err := l.stringField("payload_b64", false, ruleBytes)
		if err != nil {
			return p, err
		}
		if p.payload, err = base64.StdEncoding.Strict().DecodeString(text); err != nil || strings.ContainsAny(text, "\r\n") {
			return p, protocolError(ruleBytes, "`payload_b64` is %s", formatValue(text))
		}
	}
	if p.id, err = l.stringField("id", false, ruleMessage); err != nil {
		return p, err
	}
	if p.to, err = l.stringField("to", false, ruleMessage); err != nil {
		return p, err
	}
	metadata, ok := keys["metadata"].(map[string]any)
	if v, there := keys["metadata"]; there && v != nil && !ok {
		return p, protocolError(ruleMessage, "`metadata` are %s; allowed: an object of strings", formatValue(v))
	}
	p.metadata = map[string]string{}
	for key, v := range metadata {
		s, ok := v.(string)
		if !ok {
			return p, protocolError(ruleMessage, "the metadata's %q is %s, not a string", key, formatValue(v))
		}
		p.metadata[key] = s
	}
	return p, nil
}

func (l line) log() error {
	level, err := l.stringField("level", true, ruleLog)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, level) {
		return protocolError(ruleLog, "a `log` with the level %q", level)
	}
	if _, err := l.stringField("text", false, ruleLog); err != nil {
		return err
	}
	if fields, there := l.keys["fields"]; there {
		if _, ok := fields.(map[string]any); !ok {
			return protocolError(ruleLog, "the fields of a `log` are %s", formatValue(fields))
		}
	}
	return nil
}
