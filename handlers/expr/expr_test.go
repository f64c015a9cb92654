package expr

import (
	"errors"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
)

func config(change func(*Config)) *Config {
	c := defaults
	change(&c)
	return &c
}

func newMessage(payload string) *message.Message {
	msg := message.NewMessage("u", []byte(payload))
	msg.Metadata = message.Metadata{
		transports.MessageID: "m", transports.Device: "d", transports.Type: "data", transports.ContentType: "text/plain", transports.ContentEncoding: "identity",
		"source.exchange": "e", "header.a": "1", "header.b": "2",
	}
	return msg
}

func full() *Config {
	return config(func(c *Config) {
		c.When, c.Payload = `json.temp > 30`, `{device: device, celsius: json.temp}`
		c.Metadata = map[string]string{"header.site": `json.site`, "header.b": `json.nothing`, transports.Type: `"hot"`}
		c.Remove = []string{"header.a", "header.site", "absent"}
	})
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(full()) }, newMessage(`{"temp":31,"site":"north"}`))
}

func TestMapping(t *testing.T) {
	kept := message.Metadata{transports.MessageID: "m", transports.Device: "d", transports.Type: "data", transports.ContentType: "text/plain", transports.ContentEncoding: "identity", "header.a": "1", "header.b": "2"}
	with := func(keys ...string) message.Metadata {
		m := message.Metadata{}
		for key, value := range kept {
			m[key] = value
		}
		for i := 0; i < len(keys); i += 2 {
			if m[keys[i]] = keys[i+1]; keys[i+1] == "" {
				delete(m, keys[i])
			}
		}
		return m
	}
	for _, c := range []struct {
		config  *Config
		payload string
		want    string
		meta    message.Metadata
	}{
		{full(), `{"temp":31,"site":"north"}`, `{"celsius":31,"device":"d"}`, message.Metadata{
			transports.MessageID: "m", transports.Device: "d", transports.Type: "hot", transports.ContentType: "application/json", "header.site": "north",
		}},
		{config(func(c *Config) { c.When = `meta.type == "data"` }), "any \xff", "any \xff", kept},
		{config(func(c *Config) { c.Payload = `upper(text)` }), "open", "OPEN", with(transports.ContentEncoding, "")},
		{config(func(c *Config) { c.Payload, c.Metadata = `[size]`, map[string]string{transports.ContentType: `"x/y"`} }), "open", "[4]", with(transports.ContentEncoding, "", transports.ContentType, "x/y")},
		{config(func(c *Config) {
			c.Metadata = map[string]string{transports.MessageID: `id + "-2"`, "n": `size`, "list": `[1]`}
		}), "open", "open", with(transports.MessageID, "m-2", "n", "4", "list", "[1]")},
		{config(func(c *Config) { c.Remove = []string{"header.a"} }), "open", "open", with("header.a", "")},
	} {
		out, err := handlertest.Handle(t.Context(), handlertest.NewHost(t).Build(c.config), newMessage(c.payload))
		if err != nil || len(out) != 1 {
			t.Errorf("%+v: %v, %v", c.config, out, err)
			continue
		}
		if string(out[0].Payload) != c.want || out[0].UUID != uuidOf(c.meta[transports.MessageID]) {
			t.Errorf("%+v: %s %s", c.config, out[0].UUID, out[0].Payload)
		}
		if diff := cmp.Diff(c.meta, out[0].Metadata); diff != "" {
			t.Errorf("%+v: %s", c.config, diff)
		}
	}
}

// uuidOf returns the UUID of a message with an id. Only an id that is set changes it.
func uuidOf(id string) string {
	if id == "m" {
		return "u"
	}
	return id
}

func TestWhatIsNotSentOn(t *testing.T) {
	for _, c := range []struct {
		config  *Config
		payload string
		kind    handlers.Kind
		text    string
	}{
		{config(func(c *Config) { c.When = `size > 100` }), "x", handlers.KindDrop, "when is false"},
		{config(func(c *Config) { c.When, c.Otherwise = `size > 100`, "error" }), "x", handlers.KindPermanent, "when is false"},
		{full(), "open", handlers.KindPermanent, "when: reading the payload as JSON: byte 1: 'o'; expected: a value (column 1 of json.temp > 30)"},
		{full(), `{"temp":"31"}`, handlers.KindPermanent, "when: invalid operation: string > int (column 11 of json.temp > 30)"},
		{config(func(c *Config) { c.Payload = `json.a` }), `{}`, handlers.KindPermanent, "payload: gives nil"},
		{config(func(c *Config) { c.Metadata = map[string]string{"a": `json.a.b`} }), `{}`, handlers.KindPermanent, "metadata a: cannot fetch b from nil"},
		{config(func(c *Config) { c.Metadata = map[string]string{"a": `text`} }), "\xff", handlers.KindPermanent, "metadata a: gives text that isn't valid UTF-8"},
		{config(func(c *Config) { c.Metadata = map[string]string{transports.MessageID: `json.id`} }), `{}`, handlers.KindPermanent, "metadata message_id: a message needs an id"},
		{config(func(c *Config) { c.When = `uniq(1..5000) == nil` }), "x", handlers.KindPermanent, "more than 1000000"},
		{config(func(c *Config) { c.Payload = `text` }), strings.Repeat("x", 100<<20), handlers.KindPermanent, "payload: the payload has 104857600 bytes; an expression reads up to 16777216"},
	} {
		out, err := handlertest.Handle(t.Context(), handlertest.NewHost(t).Build(c.config), newMessage(c.payload))
		if len(out) > 0 || err == nil || handlers.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v, %v, want %s", c.config, out, err, c.text)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := full().Validate(); err != nil {
		t.Error(err)
	}
	err := config(func(c *Config) {
		c.When, c.Payload, c.Metadata = `jsn.a`, `1 +`, map[string]string{"header.x": `upper(1)`, "source.routing_key": `"x"`}
	}).Validate()
	for _, want := range []string{
		"when: unknown name jsn; did you mean json?\n    jsn.a\n    ^", "payload: unexpected token EOF", "metadata.header.x: cannot use int as argument (type string) to call upper\n    upper(1)\n          ^", "metadata.source.routing_key: describes how",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v says nothing of %s", err, want)
		}
	}
	if err := config(func(*Config) {}).Validate(); err == nil || !strings.Contains(err.Error(), "does nothing") {
		t.Error(err)
	}
}

func TestGzip(t *testing.T) {
	host := handlertest.NewHost(t)
	zipped := handlertest.Gzip(t, newMessage(`{"n":1.50}`))
	out, err := handlertest.Handle(t.Context(), host.Build(config(func(c *Config) { c.Payload = `json.n` })), zipped)
	if err != nil || string(out[0].Payload) != "1.50" || out[0].Metadata[transports.ContentEncoding] != "" {
		t.Errorf("%v, %v", out, err)
	}
	out, err = handlertest.Handle(t.Context(), host.Build(config(func(c *Config) { c.When = `text contains "n" and size > 20` })), zipped)
	if err != nil || len(out) != 1 || string(out[0].Payload) != string(zipped.Payload) || out[0].Metadata[transports.ContentEncoding] != "gzip" {
		t.Errorf("%v, %v", out, err)
	}
	zipped.Metadata[transports.ContentEncoding] = "deflate"
	if _, err := handlertest.Handle(t.Context(), host.Build(config(func(c *Config) { c.When = `json.n > 1` })), zipped); handlers.KindOf(err) != handlers.KindPermanent || !errors.Is(err, transports.ErrEncoding) {
		t.Error(err)
	}
}
