package amqp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

func TestEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		config func(*Config)
		want   endpoint
		err    string
	}{
		"defaults": {func(*Config) {}, endpoint{addr: "127.0.0.1:5672", host: "127.0.0.1", vhost: "/", username: "guest", password: "guest"}, ""},
		"parts": {func(c *Config) {
			c.Host, c.VHost, c.Username, c.Password = "rabbit", "prod", "u", "p@/:"
		}, endpoint{addr: "rabbit:5672", host: "rabbit", vhost: "prod", username: "u", password: "p@/:"}, ""},
		"parts with tls": {func(c *Config) { c.Host, c.TLS = "::1", &transports.TLS{} },
			endpoint{addr: "[::1]:5671", host: "::1", vhost: "/", username: "guest", password: "guest", tls: true}, ""},
		"url":             {func(c *Config) { c.URL = "amqp://u:p%40@h:1/v" }, endpoint{addr: "h:1", host: "h", vhost: "v", username: "u", password: "p@"}, ""},
		"url of pika":     {func(c *Config) { c.URL = "amqp://h/%2F" }, endpoint{addr: "h:5672", host: "h", vhost: "/", username: "guest", password: "guest"}, ""},
		"amqps":           {func(c *Config) { c.URL = "amqps://h" }, endpoint{addr: "h:5671", host: "h", vhost: "/", username: "guest", password: "guest", tls: true}, ""},
		"url and host":    {func(c *Config) { c.URL, c.Host = "amqp://h", "x" }, endpoint{}, "url: is given together with host"},
		"tls without s":   {func(c *Config) { c.URL, c.TLS = "amqp://h", &transports.TLS{} }, endpoint{}, "url: is amqp://, but there is a tls table"},
		"query":           {func(c *Config) { c.URL = "amqp://u:secret@h?heartbeat=5" }, endpoint{}, "url: has a query"},
		"bad escape":      {func(c *Config) { c.URL = "amqp://u:secret%zz@h" }, endpoint{}, "url: doesn't have the form"},
		"password with #": {func(c *Config) { c.URL = "amqp://u:sec#ret@h" }, endpoint{}, "url: doesn't have the form"},
		"port":            {func(c *Config) { c.URL = "amqp://u:secret@h:99999" }, endpoint{}, "url: has the port 99999"},
		"one slash":       {func(c *Config) { c.URL = "amqp:/u:secret@h" }, endpoint{}, "url: doesn't have the form"},
		"other scheme":    {func(c *Config) { c.URL = "http://u:secret@h" }, endpoint{}, "url: doesn't have the form"},
		"empty host":      {func(c *Config) { c.Host = "" }, endpoint{}, "host: is empty"},
		"bad port":        {func(c *Config) { c.Port = 70000 }, endpoint{}, "port: 70000"},
	} {
		t.Run(name, func(t *testing.T) {
			config := defaults
			c.config(&config)
			got, err := config.endpoint()
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				if strings.Contains(err.Error(), "sec") {
					t.Fatalf("the error shows the password: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(endpoint{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestValidateReportsEverything(t *testing.T) {
	no := false
	c := defaults
	c.Prefetch, c.ConfirmWindow, c.Heartbeat, c.PublishTimeout = 0, 0, time.Millisecond, -1
	c.Reconnect = transports.Reconnect{InitialInterval: time.Second, MaxInterval: time.Millisecond}
	c.MaxMessage = 0
	c.TLS = &transports.TLS{Cert: "x"}
	long := strings.Repeat("x", 256)
	c.Topics = map[string]TopicConfig{
		"kinds":   {Kind: "x", QueueType: "lazy", Unroutable: "ignore", Prefetch: -1},
		"quorum":  {QueueType: quorum, Durable: &no},
		"limit":   {DeliveryLimit: 3},
		"nobody":  {Exchange: defaultExchange, RoutingKey: []string{"x"}},
		"amq.x":   {},
		"args":    {Arguments: map[string]any{"a": map[string]any{"b": []any{struct{}{}}}}},
		"keys":    {Kind: "fanout", RoutingKey: []string{"a", "b"}},
		"long":    {RoutingKey: []string{"a", long}},
		"longer":  {PublishRoutingKey: long},
		"correct": {Queue: "q", QueueType: quorum, DeliveryLimit: 5, Arguments: map[string]any{"x-a": []any{int64(1), "b", map[string]any{"c": true}}}},
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"prefetch: 0", "confirm_window: 0", "heartbeat: 1ms", "publish_timeout: -1ns", "reconnect.max_interval: 1ms", "tls: cert and key",
		`topic.kinds.kind: "x"`, `topic.kinds.queue_type: "lazy"`, `topic.kinds.unroutable: "ignore"`, "topic.kinds.prefetch: -1",
		"topic.quorum.queue_type", "topic.limit.delivery_limit", "topic.nobody.exchange", "topic.amq.x.queue", "topic.args.arguments: a: b: AMQP has no type for struct {}",
		"topic.keys.routing_key", "topic.long.routing_key: a key is longer", "topic.longer.publish_routing_key: is longer", "max_message: 0",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(err.Error(), "correct") {
		t.Errorf("the correct topic is complained of: %v", err)
	}
	if good := defaults; good.Validate() != nil {
		t.Errorf("the defaults are wrong: %v", good.Validate())
	}
}

func TestTopicsInTheBrokersTerms(t *testing.T) {
	no := false
	c := defaults
	c.Topics = map[string]TopicConfig{
		"wild":    {RoutingKey: []string{"device.#"}},
		"single":  {RoutingKey: []string{"device.status"}, Exchange: "e", Queue: "q"},
		"several": {RoutingKey: []string{"a", "b"}},
		"given":   {RoutingKey: []string{"a.*"}, PublishRoutingKey: "a.b"},
		"direct":  {Exchange: defaultExchange, Queue: "q"},
		"quorum":  {QueueType: quorum, DeliveryLimit: 7, Prefetch: 5, Unroutable: drop, Declare: &no},
	}
	type seen struct {
		Exchange, Queue, Key string
		Keys                 []string
		Prefetch             int
		Drop, Declare        bool
		Arguments            amqp.Table
	}
	for name, want := range map[string]seen{
		"plain":   {pentroughExchange, "plain", "plain", []string{"plain"}, 1000, false, true, amqp.Table{}},
		"wild":    {pentroughExchange, "wild", "wild", []string{"device.#"}, 1000, false, true, amqp.Table{}},
		"single":  {"e", "q", "device.status", []string{"device.status"}, 1000, false, true, amqp.Table{}},
		"several": {pentroughExchange, "several", "several", []string{"a", "b"}, 1000, false, true, amqp.Table{}},
		"given":   {pentroughExchange, "given", "a.b", []string{"a.*"}, 1000, false, true, amqp.Table{}},
		"direct":  {"", "q", "q", []string{"direct"}, 1000, false, true, amqp.Table{}},
		"quorum":  {pentroughExchange, "quorum", "quorum", []string{"quorum"}, 5, true, false, amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int64(7)}},
	} {
		r, err := c.route(name)
		if err != nil {
			t.Fatal(err)
		}
		got := seen{
			r.config.Exchange.GenerateName(name), r.config.Queue.GenerateName(name), r.config.Publish.GenerateRoutingKey(name),
			r.topology.keys, r.config.Consume.Qos.PrefetchCount, r.drop, r.declare, r.config.Queue.Arguments,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTopicSaysWhatTheHostNeeds(t *testing.T) {
	c := defaults
	c.Topics = map[string]TopicConfig{"commands": {Queue: "device.commands", Prefetch: 7}}
	const system = "127.0.0.1:5672//"
	for name, want := range map[string]transports.Topic{
		"commands":  {Window: 7, Broker: true, Stream: "queue device.commands", System: system},
		"results":   {Window: 1000, Broker: true, Stream: "queue results", System: system},
		"comands":   {Window: 1000, Broker: true, Stream: "queue comands", System: system, Warning: `topic "comands" has no table, so its queue is "comands"; did you mean "commands"?`},
		"commanded": {Window: 1000, Broker: true, Stream: "queue commanded", System: system, Warning: `topic "commanded" has no table, so its queue is "commanded"; did you mean "commands"?`},
	} {
		got, err := c.Topic(name, transports.Consume)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, name := range []string{"", "amq.topic", strings.Repeat("x", 256)} {
		if _, err := c.Topic(name, transports.Produce); err == nil {
			t.Errorf("topic %.10q is taken", name)
		}
	}
}

func TestNothingPrintsThePassword(t *testing.T) {
	c := config("amqp://user:hunter2@127.0.0.1:1/")
	r := start(t, c)
	r.sick("consumer connection", "dialing 127.0.0.1:1", "refused")
	for _, s := range []string{fmt.Sprintf("%v %+v %#v", c, c, c), r.log.String(), fmt.Sprint(r.tr.Health())} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("the password is in %s", s)
		}
	}
}
