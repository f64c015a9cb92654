package amqp

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
)

const (
	sharedBegins = "others consume from a queue of this host"
	sharedEnds   = "no others consume from the queue any more"
)

// watching starts a host that checks for other consumers often.
func watching(t *testing.T, c *Config) *rig {
	t.Helper()
	r := prepare(t, c)
	r.tr.sharing.interval = 20 * time.Millisecond
	r.begin()
	return r
}

// healthy waits until a part has no error.
func (r *rig) healthy(part string) {
	r.Helper()
	r.until(part+" works", func() bool { return r.health(part) == nil })
}

// looked waits until a check has found the given number of other consumers.
func (r *rig) looked(queue string, others int) {
	r.Helper()
	r.until(fmt.Sprintf("%d others consume from %s", others, queue), func() bool {
		s := r.tr.sharing
		s.mu.Lock()
		defer s.mu.Unlock()
		u := s.queues[queue]
		return u != nil && u.others == others
	})
}

func TestTwoHostsOnOneQueueAreReported(t *testing.T) {
	t.Parallel()
	for _, queueType := range []string{"classic", "quorum"} {
		t.Run(queueType, func(t *testing.T) {
			url := testenv.Broker(t).VHost(t)
			c := config(url, topics(map[string]TopicConfig{"q": {QueueType: queueType}}))
			one, two := watching(t, c), watching(t, c)
			one.take(t.Context(), one.subscriber(), "q")
			one.take(t.Context(), one.subscriber(), "q") // its own don't count
			one.healthy("topic q")
			one.looked("q", 0)
			two.take(t.Context(), two.subscriber(), "q")
			one.sick("queue q", `queue "q" has 1 consumer that isn't this host's`, "competing = true")
			two.sick("queue q", `queue "q" has 2 consumers that aren't this host's`)
			two.closeAtOnce()
			one.looked("q", 0)
			one.healthy("queue q")
			for r, ends := range map[*rig]int{one: 1, two: 0} {
				r.logs(1, sharedBegins)
				r.logs(ends, sharedEnds)
			}
			if !strings.Contains(one.log.String(), "level=ERROR") {
				t.Errorf("no line is an error:\n%s", one.log)
			}
		})
	}
}

func TestASharedQueueIsNoMistake(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	c := config(url, topics(map[string]TopicConfig{"standby": {Arguments: map[string]any{"x-single-active-consumer": true}}}))
	var rigs []*rig
	for range 2 {
		r := watching(t, c)
		s, err := r.tr.Subscriber(transports.Consumer{Pipeline: "test", Competing: true})
		if err != nil {
			t.Fatal(err)
		}
		r.take(t.Context(), s, "competing")
		r.take(t.Context(), r.subscriber(), "standby")
		r.take(t.Context(), r.subscriber(), "mistake")
		rigs = append(rigs, r)
	}
	for _, r := range rigs {
		r.sick("queue mistake", "this host's") // so there were looks
		for _, h := range r.tr.Health() {
			if (h.Err == nil) != (h.Part != "queue mistake") {
				t.Errorf("%+v", h)
			}
		}
		r.logs(1, sharedBegins)
	}
	peer := dial(t, url)
	for _, queue := range []string{"competing", "standby"} {
		peer.consumed(queue, 2)
	}
	uses := []transports.TopicUse{{Topic: "competing", Use: transports.Consume, Competing: true}, {Topic: "standby", Use: transports.Consume}}
	for _, got := range check(t, c, uses...) {
		if got.Err != nil {
			t.Errorf("%+v", got)
		}
	}
	for _, got := range check(t, c, transports.TopicUse{Topic: "competing", Use: transports.Consume})[1:] {
		if got.Err == nil || got.Next != nextStepShared || !strings.Contains(got.Err.Error(), `queue "competing" has 2 consumers`) {
			t.Errorf("%+v", got)
		}
	}
	for _, got := range check(t, c, transports.TopicUse{Topic: "competing", Use: transports.Produce}) {
		if got.Err != nil {
			t.Errorf("%+v", got)
		}
	}
}

// Connections are lost and made, and no check finds more consumers than this host has.
func TestReconnectionsAreNoOtherHost(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	r := watching(t, config(cuttable))
	peer := dial(t, url)
	r.take(t.Context(), r.subscriber(), "q")
	for range 5 {
		r.healthy("topic q")
		peer.consumed("q", 1)
		proxy.Cut()
	}
	r.healthy("topic q")
	r.looked("q", 0)
	r.logs(0, sharedBegins)
}

// A report ends with its queue.
func TestNobodySharesAQueueThatIsGone(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	r, peer := watching(t, config(url)), dial(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	_, done := r.take(ctx, r.subscriber(), "q")
	r.healthy("topic q")
	if _, err := peer.ch.Consume("q", "", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	r.sick("queue q", `has 1 consumer that isn't this host's`)
	cancel()
	closed(t, done)
	r.sick("queue q", `has 1 consumer that isn't this host's`)
	if _, err := peer.ch.QueueDelete("q", false, false, false); err != nil {
		t.Fatal(err)
	}
	r.healthy("queue q")
}

// The broker counts a lost consumer until it misses the heartbeats of its connection.
func TestWhatIsLeftOfALostConnectionIsNoOtherHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		s := newSharing(slog.New(slog.NewTextHandler(log, nil)), 10*time.Second)
		look := func(consumers int) bool {
			time.Sleep(queueCheckInterval)
			s.mu.Lock()
			s.recordOthers("q", s.queues["q"], consumers-s.queues["q"].own)
			s.mu.Unlock()
			return s.health()[0].Err != nil
		}
		time.Sleep(time.Minute) // so that it isn't the start of the clock
		s.addConsumer("q")
		if look(1) {
			t.Error("its own consumer is reported")
		}
		s.removeConsumer("q", true)
		s.addConsumer("q")
		for range 5 {
			if look(2) {
				t.Fatal("the lost consumer is reported")
			}
		}
		if look(2) || !look(2) {
			t.Error("one that stays isn't reported after two looks")
		}
		// Another loss doesn't change whether there are other consumers.
		s.removeConsumer("q", true)
		s.addConsumer("q")
		if !look(2) || look(1) || look(1) {
			t.Error("the report doesn't end with the other consumer")
		}
		for range 3 {
			if look(2) || look(1) {
				t.Error("one look is enough")
			}
		}
		if log.count(sharedBegins) != 1 || log.count(sharedEnds) != 1 {
			t.Errorf("the log is\n%s", log)
		}
	})
}
