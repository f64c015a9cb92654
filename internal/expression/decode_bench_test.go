package expression

import (
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// BenchmarkPass writes a payload as JSON again, and splits a list of it.
func BenchmarkPass(b *testing.B) {
	for _, size := range []int{300, 10_000} {
		msg := message.NewMessage("m", payloadOf(size))
		b.Run(fmt.Sprintf("%dB/body", size), func(b *testing.B) {
			e := New(time.Now)
			p, err := e.Compile(`{device: device, data: json}`, Body)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := p.Body(e.Message(msg)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%dB/list", size), func(b *testing.B) {
			e := New(time.Now)
			p, err := e.Compile(`json.readings`, List)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.List(e.Message(msg), 1000); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
