package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pentrough/pentrough/router/middleware"
)

// BenchmarkLife measures the life of a command's record, in 500 goroutines at once.
func BenchmarkLife(b *testing.B) {
	for name, open := range map[string]func(b *testing.B) *Ledger{
		"memory": func(*testing.B) *Ledger { return New() },
		"sqlite": func(b *testing.B) *Ledger {
			return Open(NewSQLite(filepath.Join(b.TempDir(), "ledger.db"), "gateway-1"), slog.New(slog.DiscardHandler))
		},
	} {
		b.Run(name, func(b *testing.B) {
			l := open(b)
			for l.Health() != nil {
				time.Sleep(time.Millisecond)
			}
			outputs := []middleware.Output{{UUID: "7f1f6f3e-2d1c-4f4b-8b43-6f52b2d2f001", Payload: make([]byte, 200), Metadata: map[string]string{"type": "result", "content_type": "application/json"}}}
			var n atomic.Int64
			b.SetParallelism(250)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					key := middleware.LedgerKey{Pipeline: "commands", ID: fmt.Sprintf("command-%d", n.Add(1)), Device: "10.0.0.7"}
					if _, err := l.Reserve(context.Background(), key, middleware.Digest{}, middleware.Origin{}); err != nil {
						b.Fatal(err)
					}
					if _, err := l.Begin(key, false); err != nil {
						b.Fatal(err)
					}
					if err := l.Commit(key, outputs); err != nil {
						b.Fatal(err)
					}
					if err := l.Confirm(key, keep(time.Minute, 10000)); err != nil {
						b.Error(err)
					}
				}
			})
			b.StopTimer()
			if err := l.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
