package amqp

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/iotest"

	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
)

// nested returns a table of tables.
func nested(depth int) amqp.Table {
	t := amqp.Table{"leaf": "x"}
	for range depth {
		t = amqp.Table{"t": t}
	}
	return t
}

func TestHeadersBeyondTheLibrarysLimitsCostNoMessage(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", nil)
	r := start(t, config(url, onQueue))
	out := r.subscribe(t.Context(), "q")
	many := make([]any, maxElements+1)
	for body, headers := range map[string]amqp.Table{"deep": nested(60), "many": {"list": many}, "both": {"list": []any{nested(40)}, "x": "y"}} {
		peer.send("q", amqp.Publishing{MessageId: body, ContentType: "text/plain", CorrelationId: "c", Headers: headers, Body: []byte(body)})
		msg := next(t, out)
		if string(msg.Payload) != body || msg.UUID != body || msg.Metadata["content_type"] != "text/plain" || msg.Metadata["correlation_id"] != "c" {
			t.Errorf("received %q with %v", msg.Payload, msg.Metadata)
		}
		for key := range msg.Metadata {
			if len(key) > 7 && key[:7] == "header." {
				t.Errorf("%s: %s", body, key)
			}
		}
		msg.Ack()
	}
	if n := testutil.ToFloat64(r.tr.metrics.unreadable); n != 3 {
		t.Errorf("%v were counted", n)
	}
	// Tables at the limit of depth are readable.
	peer.send("q", amqp.Publishing{Headers: nested(maxDepth), Body: []byte("last")})
	if msg := next(t, out); len(msg.Metadata["header.t"]) < maxDepth {
		t.Errorf("metadata %v", msg.Metadata)
	}
	if r.log.String() != "" {
		t.Errorf("the log says %s", r.log)
	}
}

// frame returns the bytes of a frame on channel 1.
func frame(kind byte, payload []byte) []byte { return frameOf(kind, 1, payload) }

func frameOf(kind byte, channel uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), 0xCE)
}

func FuzzFramesPassWhatIsReadable(f *testing.F) {
	header := append(make([]byte, 12), 0x20, 0x00)
	good := append(bytes.Clone(header), 0, 0, 0, 3, 1, 'k', 'V')
	bad := append(bytes.Clone(header), 0, 0, 0, 3, 1, 'k', 'L')
	f.Add(byte(2), good, byte(2), bad)
	f.Add(byte(3), []byte("body"), byte(8), []byte{})
	f.Add(byte(2), []byte{}, byte(2), append(make([]byte, 12), 0xE0, 0, 255))
	f.Fuzz(func(t *testing.T, k1 byte, p1 []byte, k2 byte, p2 []byte) {
		in := append(frame(k1, p1), frame(k2, p2)...)
		emptied := 0
		got, err := io.ReadAll(newFrames(iotest.OneByteReader(bytes.NewReader(in)), func() { emptied++ }, nil))
		if err != nil {
			t.Fatal(err)
		}
		if emptied == 0 && !bytes.Equal(got, in) {
			t.Fatalf("changed %x into %x", in, got)
		}
		whole, err := io.ReadAll(newFrames(bytes.NewReader(in), func() {}, nil))
		if err != nil || !bytes.Equal(got, whole) {
			t.Fatalf("byte by byte %x, at once %x, %v", got, whole, err)
		}
		// The output consists of frames.
		for n := 0; len(got) > 0; n++ {
			if len(got) < frameStart {
				t.Fatalf("%d bytes are left", len(got))
			}
			size := frameStart + int(binary.BigEndian.Uint32(got[3:])) + 1
			if size > len(got) || got[size-1] != 0xCE {
				t.Fatalf("frame %d of %x has no end", n, got)
			}
			got = got[size:]
		}
	})
}
