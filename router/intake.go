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

// errStopped is the cause with which a stop cancels contexts.
var errStopped = errors.New("the host is stopping")

// errNotPublished pauses a pipeline that couldn't publish the outputs of a run.
var errNotPublished = errors.New("publishing the outputs was given up")

// errOlderReturned cancels the run of a message that would overtake an older one.
var errOlderReturned = errors.New("an older message of the same key goes back to its source")

// errMemoryFull refuses callers while the budget in_flight is used up.
var errMemoryFull = fmt.Errorf("%w; too many bytes are in flight", transports.ErrNotStarted)

// intake connects a pipeline's source with its chain. It implements Watermill's Subscriber.
//
// The idea: the source calls takeDelivery for each delivery, which becomes an entry of a lane. The
// lanes decide the order, and startRuns starts a run for each entry when it is its turn. When the
// run has ended, settleRun settles the delivery, or returns the entry to its lane. Some entries
// come from the ledger and not from the source: see holds and abandoned.
//
// A delivery can become void while its run goes on, for example when the broker's connection is
// lost. Then the source redelivers the message:
//
//   - A run whose chain hasn't returned is cancelled. The redelivered message runs again.
//   - A run that waits for confirms goes on. The redelivered message takes it over (inheritRun).
//   - If a run ends before the message is redelivered, its entry becomes an orphan. The orphan has
//     the outcome, and the intake settles the redelivered message with it.
//   - If the intake itself gives its subscription back (giveBack), it keeps all runs, and the
//     redelivered messages take them over.
//
// The states of the intake, in this order:
//
//	reading   Whenever the subscription ends, the intake opens a new one.
//	ending    The intake opens no new one. After drain, the subscription delivers the messages
//	          that the source still has. After stop, it ends and no run starts.
//	drained   The subscription has ended, and every entry is settled.
//	closed    Close has ended everything.
//
// The intake enters each of the last three states by closing the channel of that name.
//
// During a pause the intake starts only probes and refusals (pause.go).
//
// The lock order: intake.mu, then holds.mu, or the locks of transports in Delivery.Settle and
// Acceptor.Accepts. No code calls the handler while intake.mu is locked.
type intake struct {
	topic  string
	source transports.Topic
	// open returns a subscriber. The subscriber calls present with false when it can't get
	// messages any more, and with true when it can again.
	open     func(present func(bool)) (transports.Subscriber, error)
	describe func(*message.Message) (handlers.Description, error)
	refuse   func(*message.Message, handlers.Reason) ([]*message.Message, error)
	// refusalReason returns why an output would have to wait at its destination, or nil.
	refusalReason func() error
	log           *slog.Logger
	metrics       *pipelineMetrics
	tracing       *pipelineTracing
	// life ends at the deadline of a stop. Then all runs end, too.
	life     context.Context
	presence presence
	// holds releases held messages; nil if the pipeline holds none.
	holds *holds
	// abandoned finds messages that the source doesn't redeliver; nil in a pipeline without
	// records in the ledger.
	abandoned *abandoned
	// answerer is the source, or nil if that can't answer.
	answerer transports.Answerer
	// inFlight counts the bytes of entries from the source, until they are settled. It counts the
	// bytes of an orphan until the intake forgets the orphan. The ledger counts the bytes of its
	// own messages.
	inFlight *transports.Budget

	out chan *message.Message // to Watermill
	// wantsMore says that startRuns stopped because out was full.
	wantsMore atomic.Bool
	ending    chan struct{} // closed when the intake must open no more subscriptions
	closed    chan struct{}
	work      sync.WaitGroup

	mu      sync.Mutex
	lanes   *lanes
	active  map[*entry]struct{} // started and not settled
	watches map[<-chan struct{}]*watch
	orphans []*entry // done, but their delivery became void before they were settled
	pause   pause
	// subscriber has the current subscription; nil between two subscriptions.
	subscriber transports.Subscriber
	endIntake  context.CancelFunc
	stopping   bool          // take no deliveries and start no runs
	givingBack bool          // the subscription is being closed: start no runs
	reading    bool          // a source subscription is open or about to be
	drained    chan struct{} // closed after ending, when every entry is settled
}

// outBuffer is how many messages of started runs may wait until Watermill takes them.
const outBuffer = 128

func newIntake(in *intake, l *lanes) *intake {
	in.lanes = l
	in.out = make(chan *message.Message, outBuffer)
	in.ending = make(chan struct{})
	in.closed = make(chan struct{})
	in.drained = make(chan struct{})
	in.active = map[*entry]struct{}{}
	in.watches = map[<-chan struct{}]*watch{}
	in.pause.maxInterval, in.pause.state = lastProbe, outage.New(in.log, "pipeline")
	return in
}

// Subscribe opens the first subscription. Watermill calls it once. It ignores the context, because
// a stop ends that context before the runs have ended.
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

// openSubscription subscribes to the source. done is closed when the subscription has ended.
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

// resubscribe opens a new subscription whenever one has ended, until ending is closed. Either the
// intake gave the subscription back, or the source ended it.
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

// reopenSubscription subscribes again, with backoff. During a pause it waits until a probe is due.
// It returns nil if ending is closed first.
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

// takeDelivery makes an entry of a delivery and adds it to its lane.
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

// releaseBytes returns the bytes of an entry to the budget. The caller has the lock.
func (in *intake) releaseBytes(e *entry) {
	in.inFlight.Give(e.size)
	e.size = 0
}

// refusalForCaller returns why a message has to be refused now, or nil. It is for sources whose
// callers can't wait. It needs the lock.
func (in *intake) refusalForCaller(size int) error {
	if !in.pause.mayStart() {
		return in.pause.state.Err()
	}
	if !in.inFlight.Fits(size) {
		return errMemoryFull
	}
	return in.refusalReason()
}

// inheritRun looks for the earlier delivery of a redelivered message. If the run of that delivery
// goes on, the new delivery takes the run over. If its entry is an orphan, the new delivery is
// settled with the outcome. Otherwise inheritRun returns false. It never matches messages without
// an id, since a back end may send two equal ones on purpose.
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
