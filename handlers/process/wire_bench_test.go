package process

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkResponse parses a response line with one message.
func BenchmarkResponse(b *testing.B) {
	for _, size := range []int{200, 10_000, 64 << 10} {
		text := []byte(`{"type":"response","id":17,"messages":[{"payload":"` + strings.Repeat(`x\"y`, size/4) +
			`","metadata":{"device":"10.0.0.7","type":"reading","header.site":"north"}}]}`)
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				l, err := parse(text)
				if err != nil {
					b.Fatal(err)
				}
				if out, err := l.parseResponse(nil); err != nil || len(out) != 1 {
					b.Fatal(out, err)
				}
			}
		})
	}
}
