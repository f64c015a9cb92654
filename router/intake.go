package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// errStopped is the cause of the contexts that a stop's deadline cancels.
var errStopped = errors.New("the host is stopping")

// errNotPublished pauses a pipeline whose outputs have nowhere to go.
var errNotPublished = errors.New("what was produced could not be published")

// intake is the Watermill subscriber of one pipeline: it reads the transport's subscriber, lets the lanes order what comes, emits
// copies to Watermill, and settles the originals when their copies are settled.
type intake struct {
	pipeline string
	topic    string
	source   transports.Topic
	open     func() (message.Subscriber, error)
	describe func(*message.Message) (handlers.Description, error)
	refuse   func(*message.Message, handlers.Reason) ([]*message.Message, error)
	// accepts says why what is produced would have to wait, if it would.
	accepts func() error
	log     *slog.Logger
	metrics *pipelineMetrics
	tracing *pipelineTracing
	// life ends at the stop's deadline; every run ends with it.
	life     context.Context
	presence presence
	// holds brings back what is held; nil if nothing can be.
	holds *holds
	// answerer is the source, if it is one.
	answerer transports.Answerer

	out    chan *message.Message
	wake   chan struct{} // the emitter has something to look at
	ending chan struct{} // closed when the source isn't to be opened again: it is stopped, or runs dry
	closed chan struct{}
	work   sync.WaitGroup

	mu      sync.Mutex
	lanes   *lanes
	active  map[*entry]struct{} // emitted and not settled
	orphans []*entry            // acked after their delivery became void, until their copies come
	pause   pause
	// subscription of the moment; nil between two.
	subscriber message.Subscriber
	endIntake  context.CancelFunc
	stopping   bool          // take no more, start no more
	givingBack bool          // the subscription is being closed: start nothing of it
	reading    bool          // a source subscription is open or about to be
	drained    chan struct{} // closed when nothing is left after a stop or the source's end
}

func newIntake(in *intake, l *lanes) *intake {
	in.lanes = l
	in.out = make(chan *message.Message)
	in.wake = make(chan struct{}, 1)
	in.ending = make(chan struct{})
	in.closed = make(chan struct{})
	in.drained = make(chan struct{})
	in.active = map[*entry]struct{}{}
	in.pause.longest = lastProbe
	return in
}

// Subscribe starts reading. The router calls it once; ctx is Watermill's and ends too early to be of use.
func (in *intake) Subscribe(_ context.Context, topic string) (<-chan *message.Message, error) {
	messages, err := in.subscribe()
	if err != nil {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, err)
	}
	in.work.Go(func() { in.read(messages) })
	in.work.Go(in.emit)
	in.work.Go(in.sweep)
	if in.holds != nil {
		in.work.Go(in.holds.run)
	}
	return in.out, nil
}

// subscribe opens a subscription of the source.
func (in *intake) subscribe() (<-chan *message.Message, error) {
	sub, err := in.open()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, in.topic)
	if err != nil {
		cancel()
		return nil, err
	}
	in.presence.open(sub)
	in.mu.Lock()
	in.subscriber, in.endIntake, in.reading = sub, cancel, true
	stop := in.stopping
	in.mu.Unlock()
	if stop {
		cancel()
	}
	return messages, nil
}

// read takes messages in until the source is drained or the intake closes; a subscription that was given back, or that ended by
// itself, is opened again.
func (in *intake) read(messages <-chan *message.Message) {
	for {
		for msg := range messages {
			in.take(msg)
		}
		in.presence.close()
		in.mu.Lock()
		in.endIntake()
		in.subscriber, in.givingBack = nil, false
		in.mu.Unlock()
		if messages = in.reopen(); messages == nil {
			in.mu.Lock()
			in.reading = false
			in.checkDrained()
			in.mu.Unlock()
			return
		}
	}
}

// reopen subscribes again, in a paused pipeline not before a probe is due. It returns nil if the intake ends first.
func (in *intake) reopen() <-chan *message.Message {
	wait, pause := newBackoff(reopenInterval, lastProbe), reopenInterval
	for {
		select {
		case <-in.ending:
			return nil
		case <-time.After(pause):
		}
		in.mu.Lock()
		mayTry := in.pause.mayStart()
		in.mu.Unlock()
		if !mayTry {
			continue
		}
		messages, err := in.subscribe()
		if err == nil {
			return messages
		}
		pause = wait.next()
		in.log.Warn("subscribing again", "topic", in.topic, "err", err)
	}
}

// take puts a message into its lane.
func (in *intake) take(msg *message.Message) {
	desc, err := in.describe(msg)
	now := time.Now()
	in.metrics.received.Inc()
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.stopping:
		msg.Nack()
		return
	case in.source.Impatient && in.outageOfCallers() != nil:
		if reply := transports.ReplyFrom(msg.Context()); reply != nil {
			reply.Settle(transports.Outcome{ID: desc.ID, Err: handlers.Unavailable(in.outageOfCallers()), Code: 503})
		}
		msg.Ack()
		return
	case msg.Metadata[transports.Redelivered] == "true" && in.inherit(msg, desc, now):
		return
	}
	in.lanes.add(&entry{msg: msg, desc: desc}, err != nil, now)
	in.signal()
}

// outageOfCallers returns why a caller who can't wait is told so at once, or nil. The lock is held.
func (in *intake) outageOfCallers() error {
	if !in.pause.mayStart() {
		return in.pause.err
	}
	return in.accepts()
}

// inherit lets a redelivered copy take over the run of its original, whose delivery became void, or that run's outcome. A message
// without an id is never taken for another's copy: two alike may both be meant.
func (in *intake) inherit(msg *message.Message, desc handlers.Description, now time.Time) bool {
	if desc.ID == "" {
		return false
	}
	same := func(e *entry) bool {
		return e.desc.Key == desc.Key && e.desc.ID == desc.ID && bytes.Equal(e.msg.Payload, msg.Payload)
	}
	for i, e := range in.orphans {
		if same(e) {
			in.orphans = slices.Delete(in.orphans, i, i+1)
			msg.Ack()
			if reply := transports.ReplyFrom(msg.Context()); reply != nil {
				reply.Settle(e.run.result())
			}
			return true
		}
	}
	for e := range in.active {
		if (e.kept || e.publishing && e.void()) && same(e) {
			e.run.unwatch()
			e.msg, e.arrived, e.kept = msg, now, false
			e.run.watch()
			return true
		}
	}
	return false
}
