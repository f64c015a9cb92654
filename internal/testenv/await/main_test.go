package await

import (
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// A goroutine that ends after goleak's own patience is none that leaks.
func TestALateEndIsWaitedFor(t *testing.T) {
	ended := make(chan struct{})
	go func() { <-ended }()
	time.AfterFunc(time.Second, func() { close(ended) })
	if err := noGoroutines(); err != nil {
		t.Error(err)
	}
}
