package router

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/transports"
)

func TestPresenceStandsStillWithoutAConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p presence
		want := func(d time.Duration) {
			t.Helper()
			if got := p.elapsed(); got != d {
				t.Errorf("%s, want %s", got, d)
			}
		}
		want(0)
		first := p.openSubscriber()
		first(true)
		time.Sleep(time.Second)
		want(time.Second)
		p.closeSubscriber()
		time.Sleep(time.Hour)
		want(time.Second)
		second := p.openSubscriber()
		second(true)
		first(false) // it is closed
		time.Sleep(time.Minute)
		want(time.Minute + time.Second)
		second(false)
		time.Sleep(time.Hour)
		second(true)
		second(true)
		time.Sleep(time.Minute)
		want(2*time.Minute + time.Second)
		p.closeSubscriber()
		second(true)
		time.Sleep(time.Hour)
		want(2*time.Minute + time.Second)
	})
}

func TestASourceStands(t *testing.T) {
	now := time.Now()
	in := newIntake(&intake{}, newLanes(2, Lanes{}, false))
	in.presence.counted = time.Minute
	if s := in.sourceState(now); s.Present != time.Minute || s.Oldest != 0 || s.Full {
		t.Errorf("with nothing to do: %+v", s)
	}
	in.lanes.addEntry(&entry{delivery: &transports.Delivery{Context: context.Background()}}, false, now)
	started := in.lanes.startNext(now)
	in.lanes.addEntry(&entry{delivery: &transports.Delivery{Context: context.Background()}}, false, now.Add(time.Second))
	if s := in.sourceState(now.Add(3 * time.Second)); s.Oldest != 3*time.Second || !s.Full {
		t.Errorf("with one that runs and one that waits: %+v", s)
	}
	in.lanes.endRun(started, false, now)
	if s := in.sourceState(now.Add(3 * time.Second)); s.Oldest != 2*time.Second || s.Full {
		t.Errorf("with one that waits: %+v", s)
	}
}
