package tcp

import (
	"strings"
	"testing"

	"github.com/pentrough/pentrough/transports"
)

func TestDefaults(t *testing.T) {
	if err := testConfig().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"listen", func(c *Config) { c.Listen = new("8123") }, `listen: "8123" is no address`},
		{"framing and protocol", func(c *Config) { c.Protocol = talkConfig{} }, "framing: can't be used with a protocol"},
		{"first-frame with a protocol", func(c *Config) { c.Framing, c.Protocol, c.Identity.By = nil, talkConfig{}, byFirstFrame }, `identity.by: "first-frame" can't be used with a protocol`},
		{"protocol is missing", func(c *Config) { c.Identity.By = byProtocol }, `identity.by: "protocol" needs the setting protocol`},
		{"data without first-frame", func(c *Config) { c.Identity.Data = true }, `identity.data: is only used with by = "first-frame"`},
		{"half_close without an end", func(c *Config) { c.HalfClose, c.IdleTimeout = true, 0 }, "half_close: needs an idle_timeout"},
		{"unknown identity", func(c *Config) { c.Identity.By = "name" }, `identity.by: "name" is not known; allowed: address, first-frame`},
		{"pattern with address", func(c *Config) { c.Identity.Pattern = "x" }, `identity.pattern: is only used with by = "first-frame"`},
		{"bad pattern", func(c *Config) { c.Identity.By, c.Identity.Pattern = byFirstFrame, "(" }, "identity.pattern: the regular expression is wrong: missing closing )"},
		{"large pattern", func(c *Config) { c.Identity.By, c.Identity.Pattern = byFirstFrame, "^(.{1,1000}){1,1}.{1,1000}$" }, "identity.pattern: the regular expression has a size of 4"},
		{"several groups", func(c *Config) { c.Identity.By, c.Identity.Pattern = byFirstFrame, "(a)(b)" }, "identity.pattern: has several groups"},
		{"a ban without a time", func(c *Config) { c.PerAddress = perAddress{Refusals: 1} }, "per_address.ban: needs a time"},
		{"data", func(c *Config) { c.Data.Total = 5 }, "data.total: 5 is less than per_device, 100"},
		{"events", func(c *Config) { c.Events.Total = 5 }, "events.total: 5 is less than backlog, 10000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testConfig()
			tt.change(c)
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestTopic(t *testing.T) {
	c := testConfig()
	for _, tt := range []struct {
		name string
		use  transports.Use
		err  string
	}{
		{"events", transports.Consume, ""},
		{"data", transports.Consume, ""},
		{"event", transports.Consume, `there is no topic "event", allowed are "events" and "data"; did you mean "events"?`},
		{"dat", transports.Consume, `did you mean "data"?`},
		{"x", transports.Consume, `allowed are "events" and "data"`},
		{"data", transports.Produce, "the handler deliver writes commands"},
	} {
		topic, err := c.Topic(tt.name, tt.use)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("Topic(%q): %v, want %q", tt.name, err, tt.err)
		}
		if err == nil && topic.Window != 1000 {
			t.Errorf("Topic(%q) = %+v", tt.name, topic)
		}
	}
	if got := c.Needs().Binds["listen"]; got != *c.Listen {
		t.Errorf("Binds: %q", got)
	}
}

func TestHello(t *testing.T) {
	for _, tt := range []struct{ pattern, frame, want, err string }{
		{"", "dev-1", "dev-1", ""},
		{"^HELLO (\\S+)", "HELLO dev-1 v2", "dev-1", ""},
		{"^(?P<device>\\d+),(\\w+)", "42,x", "42", ""},
		{"^\\d+$", "42", "42", ""},
		{"^\\d+$", "x", "", "doesn't match"},
		{"^HELLO (\\S*)", "HELLO ", "", "is empty"},
		{"", "a\x01b", "", "control character"},
		{"", "a\u200bb", "", "U+200B"},
		{"", "u\u0308", "", "normal form C"},
		{"", "a ", "", "ends with a space"},
		{"", "\xff", "", "UTF-8"},
		{"", strings.Repeat("x", 256), "", "256 bytes"},
	} {
		h, err := compilePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := h.deviceName([]byte(tt.frame))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q on %q: %q, %v; want %q, %q", tt.pattern, tt.frame, got, err, tt.want, tt.err)
		}
	}
}
