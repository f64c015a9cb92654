package bubble_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pentrough/pentrough/internal/bubble"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// Nothing outside of a bubble can end what waits in it for ever.
func TestMain(m *testing.M) {
	await.Main(m, goleak.IgnoreTopFunction("github.com/pentrough/pentrough/internal/bubble_test.wait"))
}

func wait(c chan struct{}) { <-c }

func TestTimePassesAtOnce(t *testing.T) {
	in, began := bubble.Under(t), time.Now()
	var passed time.Duration
	if err := in(time.Minute, func() {
		start := time.Now()
		done := make(chan struct{})
		time.AfterFunc(24*time.Hour, func() { close(done) })
		<-done
		bubble.Wait()
		passed = time.Since(start)
	}); err != nil {
		t.Fatal(err)
	}
	if passed != 24*time.Hour || time.Since(began) > time.Hour {
		t.Errorf("%s passed in %s", passed, time.Since(began))
	}
}

func TestWhatWaitsForTheOutsideIsStuck(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ended := make(chan struct{})
	err = bubble.Under(t)(50*time.Millisecond, func() {
		reading := make(chan struct{})
		go func() {
			defer close(reading)
			_, _ = io.ReadAll(r)
		}()
		time.Sleep(time.Hour)
		<-reading
		// This channel belongs to the test, so code in the bubble can close it.
		close(ended)
	})
	if !errors.Is(err, bubble.ErrStuck) {
		t.Errorf("the bubble ended with %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestWhatNeverEndsIsTold(t *testing.T) {
	err := bubble.Under(t)(time.Minute, func() {
		go wait(make(chan struct{}))
	})
	if !errors.Is(err, bubble.ErrLeft) {
		t.Errorf("the bubble ended with %v", err)
	}
}
