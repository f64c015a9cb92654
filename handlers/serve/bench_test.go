package serve

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
)

// endless returns a hello and then n requests, each with its own id.
type endless struct {
	next string
	body string
	id   int
	n    int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.next == "" {
		if e.id == e.n {
			return 0, io.EOF
		}
		var b strings.Builder
		for b.Len() < 32<<10 && e.id < e.n {
			e.id++
			fmt.Fprintf(&b, `{"type":"request","id":%d,"remaining_ms":30000,"message":%s}`+"\n", e.id, e.body)
		}
		e.next = b.String()
	}
	n := copy(p, e.next)
	e.next = e.next[n:]
	return n, nil
}

// BenchmarkMessage measures what a message costs the process, without pipes.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{200, 64 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			d := door{build: func(handlers.Env) (handlers.Handler, error) {
				return function(func(msg *message.Message) ([]*message.Message, error) {
					return []*message.Message{handlers.Forward(msg)}, nil
				}), nil
			}}
			set := plugin.Registered().Bare()
			set.Register(handlerKind, plugin.Info{Name: "door", Summary: "Opens.", New: func() any { fresh := d; return &fresh }})
			in := &endless{
				next: `{"type":"hello","versions":[1],"config":` + rightConfig + `,"max_line":4194304}` + "\n",
				body: `{"id":"6f1c2a7e-0000-4000-8000-000000000000","payload":"` + strings.Repeat("x", size) + `","metadata":{"device":"10.0.0.7","message_id":"6f1c2a7e-0000-4000-8000-000000000000","header.traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}`,
				n:    b.N,
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			if err := newSession("door", set, in, io.Discard).run(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
