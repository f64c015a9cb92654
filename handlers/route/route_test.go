package route

import (
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
)

func newMessage(payload string) *message.Message {
	msg := message.NewMessage("m", []byte(payload))
	msg.Metadata = message.Metadata{transports.MessageID: "m", transports.Type: "data"}
	return msg
}

func config(change func(*Config)) *Config {
	c := defaults
	c.Routes = []Route{{`json.temp > 30`, "b:hot"}, {`json.temp > 10`, "b:warm"}, {`meta.type != "data"`, "b:others"}}
	change(&c)
	return &c
}

func by(change func(*Config)) *Config {
	return config(func(c *Config) {
		c.Routes, c.By, c.Topics = nil, `json.kind`, map[string]handlers.TopicRef{"a": "b:a", "1": "b:one"}
		change(c)
	})
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(config(func(*Config) {})) }, newMessage(`{"temp":31}`))
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(by(func(*Config) {})) }, newMessage(`{"kind":"a"}`))
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		config  *Config
		payload string
		to      handlers.TopicRef
		kind    handlers.Kind
		text    string
	}{
		{config(func(*Config) {}), `{"temp":31}`, "b:hot", 0, ""},
		{config(func(*Config) {}), `{"temp":11.5}`, "b:warm", 0, ""},
		{config(func(*Config) {}), `{"temp":1}`, "", handlers.KindPermanent, "no route matches"},
		{config(func(c *Config) { c.Unmatched = "drop" }), `{"temp":1}`, "", handlers.KindDrop, "no route matches"},
		{config(func(c *Config) { c.Else = "b:else" }), `{"temp":1}`, "b:else", 0, ""},
		{config(func(c *Config) { c.Else = "b:else" }), `{}`, "", handlers.KindPermanent, "routes[0]: invalid operation: nil > int (column 11"},
		{config(func(c *Config) { c.Else = "b:else" }), `open`, "", handlers.KindPermanent, "routes[0]: reading the payload as JSON"},
		{by(func(*Config) {}), `{"kind":"a"}`, "b:a", 0, ""},
		{by(func(*Config) {}), `{"kind":1}`, "b:one", 0, ""},
		{by(func(*Config) {}), `{"kind":"b:a"}`, "", handlers.KindPermanent, `by: topics has no key "b:a"`},
		{by(func(c *Config) { c.Unmatched = "drop" }), `{}`, "", handlers.KindDrop, `by: topics has no key ""`},
		{by(func(c *Config) { c.Else = "b:else" }), `{}`, "b:else", 0, ""},
		{by(func(*Config) {}), `[`, "", handlers.KindPermanent, `by: reading the payload as JSON`},
	} {
		in := newMessage(c.payload)
		out, err := handlertest.Handle(t.Context(), handlertest.NewHost(t).Build(c.config), in)
		switch {
		case c.text != "":
			if len(out) > 0 || err == nil || handlers.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v, %v, want %s", c.payload, out, err, c.text)
			}
		case err != nil || len(out) != 1 || handlers.Destination(out[0]) != c.to || out[0].UUID != "m" || string(out[0].Payload) != c.payload:
			t.Errorf("%s: %v, %v, want %s", c.payload, out, err, c.to)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		config *Config
		want   []string
	}{
		{config(func(*Config) {}), nil},
		{by(func(*Config) {}), nil},
		{config(func(c *Config) { c.Routes = nil }), []string{"routes: is missing"}},
		{config(func(c *Config) { c.By = "id" }), []string{"by: can't be used together with routes"}},
		{config(func(c *Config) { c.Topics = map[string]handlers.TopicRef{"a": "b:c"} }), []string{"topics: needs by"}},
		{by(func(c *Config) { c.Topics, c.By = nil, "len" }), []string{"topics: is missing", "by: gives a function"}},
		{config(func(c *Config) { c.Routes = []Route{{"true", "b:c"}, {"text", ""}} }), []string{"routes[1].when: gives a string; allowed: true or false\n    text\n    ^", "routes[1].to: is missing"}},
	} {
		err := c.config.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%+v: %v", c.config, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v says nothing of %s", err, want)
			}
		}
	}
}

// Every topic is prepared before the first message.
func TestTopicsArePrepared(t *testing.T) {
	env := handlertest.NewHost(t).Env()
	asked := map[handlers.TopicRef]bool{}
	publisher := env.Publisher
	env.Publisher = func(ref handlers.TopicRef) (message.Publisher, error) {
		asked[ref] = true
		return publisher(ref)
	}
	for _, c := range []*Config{config(func(c *Config) { c.Else = "b:else" }), by(func(*Config) {})} {
		if _, err := c.New(env); err != nil {
			t.Fatal(err)
		}
	}
	for _, ref := range []handlers.TopicRef{"b:hot", "b:warm", "b:others", "b:else", "b:a", "b:one"} {
		if !asked[ref] {
			t.Errorf("%s wasn't asked for", ref)
		}
	}
}
