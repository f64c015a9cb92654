package expression

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// payloadOf returns a JSON object of about n bytes with readings of a device.
func payloadOf(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"device":"10.0.0.7","site":"north","temp":31.5,"readings":[`)
	for i := 0; b.Len() < n-90; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"name":"sensor %d","value":%d.25,"ok":true,"unit":"C"}`, i, i, i%50)
	}
	b.WriteString(`],"seq":1234567,"time":"2026-05-01T12:00:00Z"}`)
	return []byte(b.String())
}

// BenchmarkFilter runs filters over payloads. The peer is json.Unmarshal of the same payload into
// any.
func BenchmarkFilter(b *testing.B) {
	for _, size := range []int{200, 64 << 10} {
		data := payloadOf(size)
		b.Run(fmt.Sprintf("%dB/json.Unmarshal", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var v any
				if err := json.Unmarshal(data, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
		for _, f := range []struct{ name, source string }{
			{"metadata", `meta.type == "data" and device startsWith "10."`},
			{"fields", `json.temp > 30 and json.site == "north" and json.seq > 5`},
			{"list", `all(json.readings, .value >= 0)`},
			{"whole", `"temp" in json`},
			{"text", `text contains "no such thing"`},
		} {
			b.Run(fmt.Sprintf("%dB/%s", size, f.name), func(b *testing.B) {
				e := New(time.Now)
				p, err := e.Compile(f.source, Bool)
				if err != nil {
					b.Fatal(err)
				}
				msg := message.NewMessage("m", data)
				msg.Metadata = message.Metadata{"type": "data", "device": "10.0.0.7"}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := p.Bool(e.Message(msg)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
