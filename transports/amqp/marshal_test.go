package amqp

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func testMarshaler() *marshaler {
	return &marshaler{
		now: func() time.Time { return noon }, user: "guest", largest: defaults.MaxMessage,
		unsendable: prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}),
	}
}

// everyType has a header of each AMQP type. RabbitMQ knows neither NaN nor infinity.
var everyType = amqp.Table{
	"text":      "blue",
	"empty":     "",
	"void":      nil,
	"bool":      true,
	"byte":      byte(200),
	"int8":      int8(-8),
	"int16":     int16(-300),
	"uint16":    uint16(65535),
	"int32":     int32(-70000),
	"uint32":    uint32(4000000000),
	"int64":     int64(-5000000000),
	"float32":   float32(1.5),
	"float64":   math.Pi,
	"decimal":   amqp.Decimal{Scale: 2, Value: -12345},
	"time":      time.Unix(1700000000, 0),
	"bytes":     []byte{0xff, 0x00},
	"utf8":      []byte("grün"),
	"array":     []any{"a", int32(1), amqp.Table{"b": []byte{0xff}}},
	"table":     amqp.Table{"when": time.Unix(1700000000, 0), "cost": amqp.Decimal{Scale: 1, Value: 15}, "deep": amqp.Table{"n": nil}},
	"x-private": int64(3),
}

var everyTypeRead = map[string]string{
	"text": "blue", "empty": "", "void": "", "bool": "true", "byte": "200", "int8": "-8", "int16": "-300", "uint16": "65535",
	"int32": "-70000", "uint32": "4000000000", "int64": "-5000000000", "float32": "1.5", "float64": "3.141592653589793",
	"decimal": "-123.45", "time": "2023-11-14T22:13:20Z", "bytes": "/wA=", "utf8": "grün",
	"array":     `["a",1,{"b":"/w=="}]`,
	"table":     `{"cost":1.5,"deep":{"n":null},"when":"2023-11-14T22:13:20Z"}`,
	"x-private": "3",
}

func TestEveryHeaderTypeSurvivesAHopThroughTheBroker(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("in", nil)
	r := start(t, config(url, topics(map[string]TopicConfig{"in": {Exchange: defaultExchange}})))
	out := r.subscribe(t.Context(), "in")
	peer.send("in", amqp.Publishing{
		Headers: everyType, Body: []byte("body"), MessageId: "m-1", CorrelationId: "c-1", ReplyTo: "answers", ContentType: "text/plain",
		ContentEncoding: "identity", Expiration: "600000", Priority: 7, Type: "order", AppId: "shop", UserId: "guest", Timestamp: time.Unix(1700000000, 0),
	})
	msg := next(t, out)
	want := message.Metadata{
		"message_id": "m-1", "correlation_id": "c-1", "reply_to": "answers", "content_type": "text/plain", "content_encoding": "identity",
		"expiration": "600000", "priority": "7", "type": "order", "app_id": "shop", "user_id": "guest", "timestamp": "2023-11-14T22:13:20Z",
		"source.routing_key": "in",
	}
	for name, value := range everyTypeRead {
		want["header."+name] = value
	}
	if diff := cmp.Diff(want, msg.Metadata); diff != "" {
		t.Errorf("metadata: %s", diff)
	}
	if msg.UUID != "m-1" || string(msg.Payload) != "body" {
		t.Errorf("UUID %q, payload %q", msg.UUID, msg.Payload)
	}

	msg.Metadata["header.text"] = "red"
	msg.Metadata["poison.reason"] = "too big"
	if err := r.publish("out", msg); err != nil {
		t.Fatal(err)
	}
	msg.Ack()
	got := peer.get("out")
	headers := amqp.Table{"poison.reason": "too big"}
	for name, value := range everyType {
		headers[name] = value
	}
	headers["text"] = "red"
	if diff := cmp.Diff(headers, got.Headers, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("headers: %s", diff)
	}
	type properties struct {
		MessageID, CorrelationID, ReplyTo, ContentType, ContentEncoding, Expiration, Type, AppID, UserID string
		Priority, DeliveryMode                                                                           uint8
		Timestamp                                                                                        int64
	}
	if diff := cmp.Diff(
		properties{"m-1", "c-1", "answers", "text/plain", "identity", "600000", "order", "shop", "guest", 7, amqp.Persistent, 1700000000},
		properties{got.MessageId, got.CorrelationId, got.ReplyTo, got.ContentType, got.ContentEncoding, got.Expiration, got.Type, got.AppId, got.UserId, got.Priority, got.DeliveryMode, got.Timestamp.Unix()},
	); diff != "" {
		t.Errorf("properties: %s", diff)
	}
}

func TestWhatAMQPCannotCarryCostsNoMessageAndNoChannel(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	m := testMarshaler()
	msg := message.NewMessage("id-1", []byte("body"))
	for key, value := range map[string]string{
		transports.Expiration:             "soon",
		transports.Priority:               "300",
		transports.Timestamp:              "yesterday",
		transports.CorrelationID:          long,
		transports.ReplyTo:                directReplyTo,
		transports.UserID:                 "somebody",
		transports.Redelivered:            "true",
		SourceExchange:                    "e",
		SourceRoutingKey:                  "k",
		transports.HeaderPrefix + "CC":    "elsewhere",
		transports.HeaderPrefix + "bcc":   "elsewhere",
		transports.HeaderPrefix + long:    "v",
		transports.HeaderPrefix:           "v",
		transports.HeaderPrefix + "huge":  strings.Repeat("y", 100_000),
		transports.HeaderPrefix + "small": "kept",
		transports.HeaderPrefix + "both":  "old",
		"both":                            "new",
		transports.Device:                 "10.0.0.7",
	} {
		msg.Metadata[key] = value
	}
	p, err := m.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	want := amqp.Publishing{
		MessageId: "id-1", DeliveryMode: amqp.Persistent, Timestamp: noon, Body: []byte("body"),
		Headers: amqp.Table{
			"expiration": "soon", "priority": "300", "timestamp": "yesterday", "correlation_id": long, "reply_to": directReplyTo,
			"small": "kept", "both": "new", "device": "10.0.0.7",
		},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
	if n := testutil.ToFloat64(m.unsendable); n != 10 {
		t.Errorf("%v were counted, want 10", n)
	}

	// Does the broker accept it?
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url))
	if err := r.publish("t", msg); err != nil {
		t.Fatal(err)
	}
	if got := dial(t, url).get("t"); string(got.Body) != "body" {
		t.Errorf("received %q", got.Body)
	}
	if r.log.String() != "" {
		t.Errorf("the log says %s", r.log)
	}
}

func TestRenderKnowsNumbersThatJSONDoesNot(t *testing.T) {
	for want, value := range map[string]any{
		"NaN": math.NaN(), `["-Inf"]`: []any{math.Inf(-1)}, `{"n":"NaN"}`: amqp.Table{"n": float32(math.NaN())},
		"12": amqp.Decimal{Value: 12}, "0.00012": amqp.Decimal{Scale: 5, Value: 12},
	} {
		if got := renderHeader(value); got != want {
			t.Errorf("%v reads %q, want %q", value, got, want)
		}
	}
}

func TestAMessageWithoutIDHasNone(t *testing.T) {
	msg, err := testMarshaler().Unmarshal(amqp.Delivery{Body: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	if msg.UUID == "" {
		t.Error("no UUID")
	}
	if len(msg.Metadata) != 0 {
		t.Errorf("metadata %v", msg.Metadata)
	}
}

func TestTheIDOfAMessageIsItsMetadataElseItsUUID(t *testing.T) {
	for name, c := range map[string]struct{ uuid, id, want string }{
		"both":     {"u", "m", "m"},
		"uuid":     {"u", "", "u"},
		"too long": {"u", strings.Repeat("m", 256), "u"},
	} {
		msg := message.NewMessage(c.uuid, nil)
		if c.id != "" {
			msg.Metadata[transports.MessageID] = c.id
		}
		p, err := testMarshaler().Marshal(msg)
		if err != nil {
			t.Fatal(err)
		}
		if p.MessageId != c.want {
			t.Errorf("%s: %q", name, p.MessageId)
		}
	}
}

func FuzzMarshal(f *testing.F) {
	f.Add("header.x", "y", "priority", "9")
	f.Add("expiration", "007", "header.", "")
	f.Add("timestamp", "0000-01-01T00:00:00Z", "message_id", "\xff")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		msg := message.NewMessage("id", nil)
		msg.SetContext(context.Background())
		msg.Metadata[k1], msg.Metadata[k2] = v1, v2
		p, err := testMarshaler().Marshal(msg)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Headers.Validate(); err != nil {
			t.Fatal(err)
		}
		for name := range p.Headers {
			if len(name) > maxShortString {
				t.Fatalf("header %q is too long", name)
			}
		}
		for _, s := range []string{p.MessageId, p.CorrelationId, p.ReplyTo, p.ContentType, p.ContentEncoding, p.Expiration, p.Type, p.UserId, p.AppId} {
			if len(s) > maxShortString {
				t.Fatalf("property %q is too long", s)
			}
		}
	})
}
