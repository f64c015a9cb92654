package amqp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestADeadlineComesInTimeAndIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("too late")
		d := &deadlines{after: 10 * time.Second, cause: cause}
		begun := time.Now()
		first := d.sharedContext()
		time.Sleep(maxShare)
		if d.sharedContext() != first {
			t.Error("a deadline of the same tenth of a second isn't shared")
		}
		time.Sleep(time.Millisecond)
		second := d.sharedContext()
		if second == first {
			t.Error("a deadline is shared for longer than it says")
		}
		<-first.Done()
		if took := time.Since(begun); took < d.after || took > d.after+maxShare || !errors.Is(context.Cause(first), cause) {
			t.Errorf("ended after %s: %v", took, context.Cause(first))
		}
		<-second.Done() // by itself, so that nothing stays
	})
}
