package amqp

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// channelModel acks tags as a broker does.
type channelModel struct {
	t      *rapid.T
	open   map[uint64]bool
	frames int
}

func (c *channelModel) Ack(tag uint64, multiple bool) error {
	c.frames++
	if !c.open[tag] {
		c.t.Fatalf("tag %d is acked twice, or was never delivered", tag)
	}
	if !multiple {
		delete(c.open, tag)
		return nil
	}
	for other := range c.open {
		if other <= tag {
			delete(c.open, other)
		}
	}
	return nil
}

func TestAcksCoverWhatIsSettledAndNothingElse(t *testing.T) { rapid.Check(t, checkAcks) }

func checkAcks(t *rapid.T) {
	n := rapid.IntRange(1, 60).Draw(t, "deliveries")
	broker := &channelModel{t: t, open: map[uint64]bool{}}
	for tag := range uint64(n) {
		broker.open[tag+1] = true
	}
	sent := 0
	a := newAcks(broker, func(n int) { sent += n })
	order := rapid.Permutation(tags(n)).Draw(t, "order of settling")
	acked := rapid.IntRange(0, n).Draw(t, "how many are acked")
	for done := 0; done < acked; {
		// Acks that become ready during a write go in one batch.
		size := rapid.IntRange(1, acked-done).Draw(t, "batch")
		for _, tag := range order[done : done+size] {
			a.queueAck(tag)
		}
		a.writeAcks(false)
		done += size
		// Acks don't wait a second time for the same unsettled tag.
		stuck := rapid.Bool().Draw(t, "the time is over")
		if stuck {
			a.writeAcks(true)
		}
		if waits := len(broker.open) - (n - done); waits < 0 || stuck && waits > 0 || waits > len(a.deferred) {
			t.Fatalf("%d of %d are settled, but the broker waits for %d; %d are deferred, which is over: %v", done, n, len(broker.open), len(a.deferred), stuck)
		}
		for _, tag := range order[done:] {
			if !broker.open[tag] {
				t.Fatalf("tag %d is acked, but isn't settled", tag)
			}
		}
	}
	go a.run()
	a.stop()
	if len(broker.open) != n-acked {
		t.Fatalf("%d of %d are settled, but the broker waits for %d after the end", acked, n, len(broker.open))
	}
	if sent != acked {
		t.Fatalf("%d acks were counted, want %d", sent, acked)
	}
}

func tags(n int) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i) + 1
	}
	return all
}

// gate blocks the first ack until it is opened.
type gate struct {
	once          sync.Once
	entered, open chan struct{}
	frames        []uint64
	multiple      []bool
}

func (g *gate) Ack(tag uint64, multiple bool) error {
	g.once.Do(func() {
		close(g.entered)
		<-g.open
	})
	g.frames = append(g.frames, tag)
	g.multiple = append(g.multiple, multiple)
	return nil
}

func TestAcksThatComeWhileOneIsWrittenGoTogether(t *testing.T) {
	g := &gate{entered: make(chan struct{}), open: make(chan struct{})}
	a := newAcks(g, func(int) {})
	go a.run()
	a.queueAck(1)
	<-g.entered
	for tag := uint64(2); tag <= 500; tag++ {
		a.queueAck(tag)
	}
	close(g.open)
	a.stop()
	a.queueAck(501)
	if len(g.frames) != 2 || g.frames[0] != 1 || g.frames[1] != 500 || g.multiple[0] || !g.multiple[1] {
		t.Fatalf("frames %v, multiple %v; want 1 alone and then everything up to 500", g.frames, g.multiple)
	}
}

func TestAcksAboveAGapAreDeferredForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{entered: make(chan struct{}), open: make(chan struct{})}
		close(g.open)
		a := newAcks(g, func(int) {})
		go a.run()
		add := func(tags ...uint64) {
			for _, tag := range tags {
				a.queueAck(tag)
				synctest.Wait()
			}
		}
		add(2, 3)
		if len(g.frames) != 0 {
			t.Fatalf("frames %v before the gap closed", g.frames)
		}
		add(1)
		if len(g.frames) != 1 || g.frames[0] != 3 || !g.multiple[0] {
			t.Fatalf("frames %v, multiple %v; want one up to 3", g.frames, g.multiple)
		}
		add(5)
		time.Sleep(deferTime)
		synctest.Wait()
		if len(g.frames) != 2 || g.frames[1] != 5 || g.multiple[1] {
			t.Fatalf("frames %v, multiple %v; want 5 alone after %s", g.frames, g.multiple, deferTime)
		}
		add(6)
		if len(g.frames) != 3 || g.frames[2] != 6 || g.multiple[2] {
			t.Fatalf("frames %v, multiple %v; want 6 alone, as 4 was waited for in vain", g.frames, g.multiple)
		}
		add(4, 8)
		if len(g.frames) != 4 || g.frames[3] != 4 {
			t.Fatalf("frames %v; want 4, and 8 deferred for the next gap", g.frames)
		}
		// The time counts from the first deferred ack.
		time.Sleep(deferTime / 2)
		add(9)
		time.Sleep(deferTime / 2)
		synctest.Wait()
		if len(g.frames) != 6 || g.frames[4] != 8 || g.frames[5] != 9 {
			t.Fatalf("frames %v; want 8 and 9 alone %s after 8", g.frames, deferTime)
		}
		a.stop()
	})
}

// counter counts frames.
type counter int

func (c *counter) Ack(uint64, bool) error {
	*c++
	return nil
}

func TestAcksKeepLittleAboveAStuckTag(t *testing.T) {
	const most, n = 100, 100_000
	var frames counter
	sent := 0
	a := newAcks(&frames, func(n int) { sent += n })
	// Tag 1 and some of the latest tags stay unsettled all the time.
	a.writeAcks(true)
	for tag := uint64(2); tag <= n; tag += 10 {
		for i := range uint64(10) {
			a.queueAck(tag + 9 - i)
			a.writeAcks(false)
		}
	}
	a.writeAcks(true)
	if sent != n || len(a.gaps) != 1 || len(a.deferred) != 0 || cap(a.gaps) > most || cap(a.deferred) > most {
		t.Errorf("%d are acked; %d gaps in %d places, %d deferred in %d", sent, len(a.gaps), cap(a.gaps), len(a.deferred), cap(a.deferred))
	}
	before := frames
	a.queueAck(1)
	go a.run()
	a.stop()
	if frames != before+1 || len(a.gaps) != 0 {
		t.Errorf("the stuck tag took %d frames and left %d gaps", frames-before, len(a.gaps))
	}
}

// BenchmarkAcks compares acks in order with acks above a tag that is never settled.
func BenchmarkAcks(b *testing.B) {
	for name, first := range map[string]uint64{"in order": 1, "above a stuck tag": 2} {
		b.Run(name, func(b *testing.B) {
			a := newAcks(new(counter), func(int) {})
			b.ReportAllocs()
			for tag := range uint64(b.N) {
				a.queueAck(first + tag)
				// At 10,000 messages/s this number arrives in the 40 ms of a deferral.
				a.writeAcks(tag%400 == 0)
			}
		})
	}
}
