package split

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

func newMessage(payload string) *message.Message {
	msg := message.NewMessage("u", []byte(payload))
	msg.Metadata = message.Metadata{transports.MessageID: "m", transports.Device: "d", transports.ContentType: "text/csv", "source.routing_key": "r", "header.a": "1"}
	return msg
}

func config(change func(*Config)) *Config {
	c := defaults
	change(&c)
	return &c
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(config(func(*Config) {})) }, newMessage(`[1,{"a":2},"x"]`), newMessage(`[]`))
}

func TestParts(t *testing.T) {
	for _, c := range []struct{ items, payload, want string }{
		{`json`, `[ {"b":1.0, "a":[2]} , "x", null]`, `application/json {"b":1.0, "a":[2]}; x;application/json null`},
		{`json.records`, `{"records":[1]}`, `application/json 1`},
		{`lines(text)`, "a\r\n\nb", ` a; ; b`},
		{`map(json.r, ({d: json.d, v: #}))`, `{"d":"x","r":[1,2]}`, `application/json {"d":"x","v":1};application/json {"d":"x","v":2}`},
	} {
		h := handlertest.NewHost(t).Build(config(func(c2 *Config) { c2.Items = c.items }))
		out, err := handlertest.Handle(t.Context(), h, newMessage(c.payload))
		if err != nil {
			t.Errorf("%s: %v", c.items, err)
		}
		var got []string
		for i, msg := range out {
			got = append(got, msg.Metadata[transports.ContentType]+" "+string(msg.Payload))
			delete(msg.Metadata, transports.ContentType)
			id := fmt.Sprintf("m/%d", i+1)
			if diff := cmp.Diff(message.Metadata{
				transports.MessageID: id, transports.Device: "d", "header.a": "1", "split.id": "m", "split.index": fmt.Sprint(i + 1), "split.count": fmt.Sprint(len(out)),
			}, msg.Metadata); diff != "" || msg.UUID != id {
				t.Errorf("%s: %s %s", c.items, msg.UUID, diff)
			}
		}
		if diff := cmp.Diff(c.want, strings.Join(got, ";")); diff != "" {
			t.Errorf("%s: %s", c.items, diff)
		}
	}
}

func TestWhatIsNoList(t *testing.T) {
	for _, c := range []struct{ items, payload, want string }{
		{`json`, `{"a":1}`, "items: json is not a list (column 1 of json)"},
		{`json.a`, `{}`, "items: json.a doesn't exist"},
		{`json`, "a,b", "items: reading the payload as JSON: byte 1: 'a'"},
		{`json`, "[\"\xff\"]", "items: reading the payload as JSON: byte 3: the string is not UTF-8"},
		{`json`, "[1,2,3,4]", "items: the list has more than 3 elements"},
		{`lines(text)`, "a\nb\nc\nd", "items: gives 4 elements; allowed: up to 3"},
		{`json.a ?? 0`, `{}`, "items: gives a number; allowed: a list"},
		{`json`, strings.Repeat(" ", 100<<20), "items: the payload has 104857600 bytes"},
	} {
		h := handlertest.NewHost(t).Build(config(func(c2 *Config) { c2.Items, c2.Max = c.items, 3 }))
		out, err := handlertest.Handle(t.Context(), h, newMessage(c.payload))
		if len(out) > 0 || err == nil || handlers.KindOf(err) != handlers.KindPermanent || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %s", c.items, out, err, c.want)
		}
	}
}

// A redelivered message has the same parts. Each part has its own id, and no two messages share an
// id.
func TestIDs(t *testing.T) {
	h := handlertest.NewHost(t).Build(config(func(*Config) {}))
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,255}`), 1, 4, rapid.ID[string]).Draw(rt, "ids")
		n := rapid.IntRange(0, 12).Draw(rt, "elements")
		payload := "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]"
		seen := map[string]bool{}
		for _, id := range ids {
			var first []string
			for range 2 {
				msg := newMessage(payload)
				msg.Metadata[transports.MessageID] = id
				out, err := handlertest.Handle(t.Context(), h, msg)
				if err != nil || len(out) != n {
					rt.Fatalf("%d parts, %v", len(out), err)
				}
				var got []string
				for _, part := range out {
					got = append(got, part.UUID)
				}
				if first == nil {
					first = got
				}
				if diff := cmp.Diff(first, got); diff != "" {
					rt.Fatal(diff)
				}
			}
			for _, part := range first {
				if seen[part] || len(part) > device.MaxName {
					rt.Fatalf("%q comes twice or is too long", part)
				}
				seen[part] = true
			}
		}
	})
}

func TestValidate(t *testing.T) {
	err := config(func(c *Config) { c.Items, c.Max = "size", 0 }).Validate()
	for _, want := range []string{"items: gives a number; allowed: a list\n    size\n    ^", "max: is 0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v says nothing of %s", err, want)
		}
	}
	if err := config(func(*Config) {}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestGzip(t *testing.T) {
	h := handlertest.NewHost(t).Build(config(func(*Config) {}))
	out, err := handlertest.Handle(t.Context(), h, handlertest.Gzip(t, newMessage(`[1.00]`)))
	if err != nil || len(out) != 1 || string(out[0].Payload) != "1.00" || out[0].Metadata[transports.ContentEncoding] != "" {
		t.Errorf("%v, %v", out, err)
	}
}
