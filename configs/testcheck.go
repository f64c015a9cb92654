package configs

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// The encodings of payloads in tests.
const (
	textEncoding   = "text"
	hexEncoding    = "hex"
	base64Encoding = "base64"
)

// DecodePayload decodes a payload that a test writes as text, hex or base64.
func DecodePayload(encoding, text string) ([]byte, error) {
	switch encoding {
	case hexEncoding:
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			return nil, fmt.Errorf("%q is not hex", text)
		}
		return b, nil
	case base64Encoding:
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not base64", text)
		}
		return b, nil
	default:
		return []byte(text), nil
	}
}

// complaint is a problem of a step. key is a key inside the step, or "" for the whole step.
type complaint struct{ key, message string }

// check returns the problems of a step that don't depend on the configuration.
func (s *TestStep) check() []complaint {
	c := &complaints{}
	given := 0
	for _, is := range []bool{s.Input != nil, s.Device != nil, s.Hook != nil, s.Wait > 0, s.Expect != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		c.add("", "a step has exactly one action; allowed: one of input, device, hook, wait, expect")
	}
	if s.Input != nil {
		s.Input.check(c)
	}
	if s.Device != nil {
		s.Device.check(c)
	}
	if s.Hook != nil {
		s.Hook.check(c)
	}
	if s.Expect != nil {
		s.Expect.check(c)
	}
	return c.all
}

type complaints struct{ all []complaint }

func (c *complaints) add(key, format string, args ...any) {
	c.all = append(c.all, complaint{key, fmt.Sprintf(format, args...)})
}

// one adds a complaint unless exactly one of the keys is given.
func (c *complaints) one(key, what string, given map[string]bool) {
	keys := slices.Sorted(maps.Keys(given))
	n := 0
	for _, key := range keys {
		if given[key] {
			n++
		}
	}
	if n != 1 {
		c.add(key, "%s; allowed: one of %s", what, strings.Join(keys, ", "))
	}
}

func (c *complaints) encoded(key, encoding, text string) {
	if _, err := DecodePayload(encoding, text); err != nil {
		c.add(key, "%v", err)
	}
}

func (i *TestInput) check(c *complaints) {
	c.one("input", "an input needs exactly one target", map[string]bool{"topic": i.Topic != "", "pipeline": i.Pipeline != ""})
	payloads := map[string]bool{"json": i.JSON != nil, "payload": i.HasPayload, "cmd": i.Cmd != ""}
	c.one("input", "an input needs exactly one payload", payloads)
	if (i.Device != "") != (i.Cmd != "") {
		c.add("input.device", "device and cmd must be given together")
	}
	c.encoded("input.payload", i.Encoding, i.Payload)
}

func (d *TestDevice) check(c *complaints) {
	for _, got := range slices.Sorted(maps.Keys(d.Answers)) {
		if got != AnyFrame {
			c.encoded("device.answers", d.Encoding, got)
		}
		c.encoded("device.answers", d.Encoding, d.Answers[got])
	}
	for _, said := range d.Says {
		c.encoded("device.says", d.Encoding, said)
	}
	if d.Online != nil && !*d.Online && len(d.Says) > 0 {
		c.add("device.says", "a device that disconnects can't send")
	}
}

func (h *TestHook) check(c *complaints) {
	if h.URL != AnyHook {
		checkURL(c, "hook.url", h.URL)
	}
	c.encoded("hook.payload", h.Encoding, h.Payload)
	if h.Payload != "" && h.JSON != nil {
		c.add("hook.payload", "the body is given twice; allowed: json or payload")
	}
}

// AnyHook is the URL that stands for every server that no other step names.
const AnyHook = "*"

func checkURL(c *complaints, key, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		c.add(key, "%q isn't a URL that can be called; allowed: http://HOST... or https://HOST...", text)
	} else if u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		c.add(key, "a URL here has only a host and a path; leave out query, user and fragment")
	}
}

func (e *TestExpect) check(c *complaints) {
	c.one("expect", "an expectation needs exactly one subject", map[string]bool{
		"topic": e.Topic != "", "device": e.Device != "", "hook": e.Hook != "", "reply": e.Reply, "dead_letter": e.DeadLetter,
	})
	if e.Hook != "" {
		checkURL(c, "expect.hook", e.Hook)
		for _, key := range slices.Sorted(maps.Keys(e.Metadata)) {
			if name := http.CanonicalHeaderKey(key); key != name && key != "method" && key != "query" {
				c.add("expect.metadata", "%q isn't the canonical spelling of a header; allowed: %q, method, query", key, name)
			}
		}
	}
	if e.Payload != nil {
		c.encoded("expect.payload", e.Encoding, *e.Payload)
	}
	if e.Payload != nil && e.JSON != nil {
		c.add("expect.payload", "the payload is given twice; allowed: json or payload")
	}
	for _, key := range slices.Sorted(maps.Keys(e.Matches)) {
		at := "expect.matches." + key
		if err := checkPath(key, "payload", "error"); err != nil {
			c.add(at, "%v", err)
		}
		if _, err := regexp.Compile(e.Matches[key]); err != nil {
			c.add(at, "%v", err)
		}
	}
	for _, path := range e.Absent {
		if err := checkPath(path); err != nil {
			c.add("expect.absent", "%v", err)
		}
	}
	described := e.JSON != nil || e.Payload != nil || e.Metadata != nil || e.Matches != nil || e.Absent != nil || e.Code != 0
	if e.Nothing && (described || e.Count > 1 || e.Anywhere) {
		c.add("expect.nothing", "an expectation with nothing can't describe a message")
	}
	if e.Code != 0 && !e.Reply {
		c.add("expect.code", "only a reply has a code")
	}
	if e.Device != "" && (e.Metadata != nil || slices.ContainsFunc(e.Absent, func(p string) bool { return strings.HasPrefix(p, MetadataPath) })) {
		c.add("expect.metadata", "a frame to a device has no metadata")
	}
}

// AnyFrame is the key of the answer to every frame for which the answers have no other key.
const AnyFrame = "*"

// The paths of [TestExpect.Matches] and [TestExpect.Absent].
const (
	JSONPath     = "json."
	MetadataPath = "metadata."
)

func checkPath(path string, words ...string) error {
	if slices.Contains(words, path) {
		return nil
	}
	for _, prefix := range []string{JSONPath, MetadataPath} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && rest != "" {
			return nil
		}
	}
	return errors.New("not a valid path; allowed: " + strings.Join(append(words, "json.FIELD", "metadata.KEY"), ", "))
}
