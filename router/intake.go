package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
)

// errStopped is the cause of the contexts that a stop's deadline cancels.
var errStopped = errors.New("the host is stopping")

// errNotPublished pauses a pipeline whose outputs have nowhere to go.
var errNotPublished = errors.New("what was produced could not be published")

// errFull refuses callers while messages in flight take too much memory.
var errFull = fmt.Errorf("%w; too many bytes are in flight", transports.ErrNotStarted)

// intake is between a pipeline's source and its chain. It takes deliveries in, lets the lanes order them, starts a run
// of each when it is its turn, and settles the deliveries when their runs have ended. To Watermill it is the pipeline's
// subscriber.
type intake struct {
	topic  string
	source transports.Topic
	// open returns a subscriber that reports whether it is present.
	open     func(present func(bool)) (transports.Subscriber, error)
	describe func(*message.Message) (handlers.Description, error)
	refuse   func(*message.Message, handlers.Reason) ([]*message.Message, error)
	// accepts returns why a produced message would have to wait, or nil.
	refusalReason func() error
	log           *slog.Logger
	metrics       *pipelineMetrics
	tracing       *pipelineTracing
	// life ends at the stop's deadline; every run ends with it.
	life     context.Context
	presence presence
	// holds brings back what is held; nil if nothing can be.
	holds *holds
	// abandoned finds what the source doesn't redeliver; nil in a pipeline without records in the
	// ledger.
	abandoned *abandoned
	// answerer is the source, if it is one.
	answerer transports.Answerer
	// inFlight counts the bytes of entries: from when the source hands one out until it is settled, and
	// as an orphan until it is forgotten. Those from the ledger are counted there.
	inFlight *transports.Budget

	out chan *message.Message // to Watermill
	// full says that more could start as soon as Watermill takes something from out.
	full   atomic.Bool
	ending chan struct{} // closed when the source isn't to be opened again: it is stopped, or runs dry
	closed chan struct{}
	work   sync.WaitGroup

	mu      sync.Mutex
	lanes   *lanes
	active  map[*entry]struct{} // started and not settled
	watches map[<-chan struct{}]*watch
	orphans []*entry // handled after their delivery became void, until their copies come
	pause   pause
	// subscription of the moment; nil between two.
	subscriber transports.Subscriber
	endIntake  context.CancelFunc
	stopping   bool          // take no more, start no more
	givingBack bool          // the subscription is being closed: start nothing of it
	reading    bool          // a source subscription is open or about to be
	drained    chan struct{} // closed when nothing is left after a stop or the source's end
}

// outBuffer is how many started messages may wait for Watermill.
const outBuffer = 128

func newIntake(in *intake, l *lanes) *intake {
	in.lanes = l
	in.out = make(chan *message.Message, outBuffer)
	in.ending = make(chan struct{})
	in.closed = make(chan struct{})
	in.drained = make(chan struct{})
	in.active = map[*entry]struct{}{}
	in.watches = map[<-chan struct{}]*watch{}
	in.pause.longest, in.pause.state = lastProbe, outage.New(in.log, "pipeline")
	return in
}

// Subscribe starts reading. Watermill calls it once; its ctx ends too early to be of use.
func (in *intake) Subscribe(_ context.Context, topic string) (<-chan *message.Message, error) {
	done, err := in.openSubscription()
	if err != nil {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, err)
	}
	context.AfterFunc(in.life, in.cancelRuns)
	in.work.Go(func() { in.resubscribe(done) })
	in.work.Go(in.runSweeps)
	if in.holds != nil {
		in.work.Go(in.holds.run)
	}
	if in.abandoned != nil {
		in.work.Go(in.resumeAbandoned)
	}
	return in.out, nil
}

// subscribe opens a subscription of the source.
func (in *intake) openSubscription() (done <-chan struct{}, err error) {
	report := in.presence.openSubscriber()
	sub, err := in.open(report)
	if err != nil {
		return nil, err
	}
	report(true)
	ctx, cancel := context.WithCancel(context.Background())
	if done, err = sub.Subscribe(ctx, in.topic, in.takeDelivery); err != nil {
		cancel()
		in.presence.closeSubscriber()
		return nil, err
	}
	in.mu.Lock()
	in.subscriber, in.endIntake, in.reading = sub, cancel, true
	stop := in.stopping
	in.mu.Unlock()
	if stop {
		cancel()
	}
	return done, nil
}

// resubscribe opens another subscription when one was given back or ended by itself, until the source is drained or the
// intake closes.
func (in *intake) resubscribe(done <-chan struct{}) {
	for done != nil {
		<-done
		in.presence.closeSubscriber()
		in.mu.Lock()
		in.endIntake()
		in.subscriber, in.givingBack = nil, false
		in.mu.Unlock()
		done = in.reopenSubscription()
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reading = false
	in.checkDrained()
}

// reopen subscribes again, in a paused pipeline not before a probe is due. It returns nil if the intake ends first.
func (in *intake) reopenSubscription() (done <-chan struct{}) {
	pauses, pause := backoff.New(reopenInterval, lastProbe), reopenInterval
	state := outage.New(in.log.With("topic", in.topic), "subscribing")
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
		done, err := in.openSubscription()
		state.Report(err)
		if err == nil {
			return done
		}
		pause = pauses.NextBackOff()
	}
}

// take puts a delivery into its lane.
func (in *intake) takeDelivery(d *transports.Delivery) {
	now := time.Now()
	e := &entry{delivery: d, message: d.Message()}
	desc, err := in.describe(e.message)
	e.desc = desc
	size := sizeOf(d.Payload, d.Metadata) + desc.Size
	in.metrics.received.Inc()
	in.mu.Lock()
	defer in.mu.Unlock()
	var down error
	if in.source.Impatient {
		down = in.refusalForCaller(size)
	}
	switch {
	case in.stopping:
		in.rejectEntry(e, transports.ErrNotStarted)
		return
	case down != nil:
		in.rejectEntry(e, down)
		return
	case d.Metadata[transports.Redelivered] == "true" && in.inheritRun(e, now):
		return
	}
	in.inFlight.Add(size)
	e.size = size
	in.lanes.addEntry(e, err != nil, now)
	in.startRuns()
}

// sizeOf returns about how many bytes of memory a message takes.
func sizeOf(payload message.Payload, metadata message.Metadata) int {
	n := len(payload)
	for key, value := range metadata {
		n += len(key) + len(value)
	}
	return n
}

// release gives the bytes of an entry back. The lock is held.
func (in *intake) releaseBytes(e *entry) {
	in.inFlight.Give(e.size)
	e.size = 0
}

// refusalForCaller returns why a caller that can't wait is refused now, or nil. The lock is held.
func (in *intake) refusalForCaller(size int) error {
	if !in.pause.mayStart() {
		return in.pause.state.Err()
	}
	if !in.inFlight.Fits(size) {
		return errFull
	}
	return in.refusalReason()
}

// inherit lets a redelivered copy take over the run of its original, whose delivery became void, or that run's outcome. A message
// without an id is never taken for another's copy: two alike may both be meant.
func (in *intake) inheritRun(again *entry, now time.Time) bool {
	if again.desc.ID == "" {
		return false
	}
	same := func(e *entry) bool {
		return e.desc.Key == again.desc.Key && e.desc.ID == again.desc.ID && bytes.Equal(e.delivery.Payload, again.delivery.Payload)
	}
	if i := slices.IndexFunc(in.orphans, same); i >= 0 {
		in.settleDelivery(again.delivery, &in.orphans[i].run.outcome)
		in.releaseBytes(in.orphans[i])
		in.orphans = slices.Delete(in.orphans, i, i+1)
		return true
	}
	for e := range in.active {
		if (e.keptRun || e.publishing && e.isVoid()) && same(e) {
			in.unwatchDelivery(e)
			e.delivery, e.arrived, e.keptRun = again.delivery, now, false
			in.watchDelivery(e)
			return true
		}
	}
	return false
}
