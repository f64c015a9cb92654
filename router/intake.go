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

// sweepInterval is how often stalls, deadlines and void deliveries are looked for; it bounds how late they are noticed.
const sweepInterval = 250 * time.Millisecond

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
	log      *slog.Logger
	metrics  *pipelineMetrics
	// life ends at the stop's deadline; every run ends with it.
	life context.Context

	out    chan *message.Message
	wake   chan struct{} // the emitter has something to look at
	ending chan struct{} // closed when the source isn't to be opened again
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
	stopping   bool // take no more, start no more
	reading    bool // a source subscription is open or about to be
	closing    bool
	drained    chan struct{} // closed when nothing is left after a stop or the source's end
	draining   bool
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
		in.mu.Lock()
		in.endIntake()
		in.subscriber = nil
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
		mayTry := in.pause.mayProbe()
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
	case in.source.Impatient && !in.pause.mayProbe():
		outage := in.pause.err
		if reply := transports.ReplyFrom(msg.Context()); reply != nil {
			reply.Settle(transports.Outcome{ID: desc.ID, Err: handlers.Unavailable(outage), Code: 503})
		}
		msg.Ack()
		return
	case msg.Metadata[transports.Redelivered] == "true" && in.inherit(msg, desc, now):
		return
	}
	in.lanes.add(&entry{msg: msg, desc: desc}, err != nil, now)
	in.signal()
}

// inherit lets a redelivered copy take over the run of its original, whose delivery became void, or that run's outcome.
func (in *intake) inherit(msg *message.Message, desc handlers.Description, now time.Time) bool {
	same := func(e *entry) bool {
		return e.desc.Key == desc.Key && e.desc.ID == desc.ID && bytes.Equal(e.msg.Payload, msg.Payload)
	}
	for i, e := range in.orphans {
		if same(e) {
			in.orphans = slices.Delete(in.orphans, i, i+1)
			msg.Ack()
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

// emit hands started messages to Watermill.
func (in *intake) emit() {
	defer close(in.out)
	for {
		in.mu.Lock()
		e := in.start()
		in.mu.Unlock()
		if e == nil {
			select {
			case <-in.wake:
				continue
			case <-in.closed:
				return
			}
		}
		dup := e.msg.Copy()
		dup.SetContext(e.run.base)
		in.work.Go(func() { in.await(e, dup) })
		select {
		case in.out <- dup:
		case <-in.closed:
			dup.Nack()
			return
		}
	}
}

// start picks the next message and makes its run. The lock is held.
func (in *intake) start() *entry {
	if in.stopping || in.closing || !in.pause.mayProbe() {
		return nil
	}
	e := in.lanes.next(time.Now())
	if e == nil {
		return nil
	}
	if in.pause.on() {
		in.pause.probe = e
	}
	e.run = newRun(in, e)
	e.run.watch()
	in.active[e] = struct{}{}
	return e
}

// await waits for the copy to be settled.
func (in *intake) await(e *entry, dup *message.Message) {
	select {
	case <-dup.Acked():
		in.settle(e, true)
	case <-dup.Nacked():
		in.settle(e, false)
	}
}

// settle passes the fate of the copy on to the original.
func (in *intake) settle(e *entry, acked bool) {
	r := e.run
	r.cancel(nil)
	in.mu.Lock()
	r.unwatch()
	r.mu.Lock()
	verdict, cause := r.verdict, r.outcome.Err
	r.mu.Unlock()
	if !acked && verdict == handled {
		// Publishing was given up: at the stop's deadline, or because it can't work as things are.
		verdict, cause = unavailable, errNotPublished
		if in.life.Err() != nil {
			verdict = cancelled
		}
	}
	void := e.void()
	again := false
	if acked {
		in.metrics.acked.Inc()
	}
	switch {
	case acked && void:
		e.arrived = time.Now()
		in.orphans = append(in.orphans, e)
	case acked:
		e.msg.Ack()
	case verdict == unavailable && !in.stopping && !void:
		again = true
	case !void:
		e.msg.Nack()
	}
	delete(in.active, e)
	in.lanes.settle(e, again, time.Now())
	in.afterRun(e, acked, verdict, cause)
	in.checkDrained()
	in.signal()
	in.mu.Unlock()
	r.settled(acked)
}

// afterRun pauses, probes on or resumes, by how a run ended. The lock is held.
func (in *intake) afterRun(e *entry, acked bool, v verdict, cause error) {
	probe := in.pause.probe == e
	if probe {
		in.pause.probe = nil
	}
	switch {
	case v == unavailable && !in.stopping:
		in.metrics.unavailable.Inc()
		if !in.pause.on() {
			in.log.Warn("pipeline paused; its messages wait and are tried again", "err", cause)
			in.metrics.paused.Set(1)
		}
		in.pause.begin(cause, probe, in.probeDue)
	case probe && acked:
		in.log.Info("pipeline works again", "paused_for", time.Since(in.pause.since).Round(time.Millisecond))
		in.metrics.paused.Set(0)
		in.pause.end()
		in.lanes.resume(time.Now())
	}
}

func (in *intake) probeDue() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.pause.due = true
	in.signal()
}

// enqueued is handlers.Enqueued.
func (in *intake) enqueued(e *entry) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.lanes.place(e)
	in.signal()
}

// publishing notes that the run's chain has returned. It is false if the run was cancelled: what it returned counts for nothing.
func (in *intake) publishing(r *run) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r.base.Err() != nil {
		return false
	}
	r.entry.publishing = true
	return true
}

func (in *intake) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// sweep looks at the times of waiting messages.
func (in *intake) sweep() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-in.closed:
			return
		case now := <-ticker.C:
			in.look(now)
		}
	}
}

func (in *intake) look(now time.Time) {
	in.mu.Lock()
	late := in.lanes.overdue(now)
	if !in.pause.on() {
		in.lanes.sweep(now)
	}
	for len(in.orphans) > 0 && (now.Sub(in.orphans[0].arrived) > 2*in.lanes.deadline || len(in.orphans) > 2*in.lanes.window) {
		in.orphans = in.orphans[1:]
	}
	late = late || in.pause.long(now)
	in.metrics.waiting.Set(float64(in.lanes.waiting))
	in.metrics.running.Set(float64(len(in.active)))
	in.signal()
	giveBack := late && in.source.Broker && in.subscriber != nil && !in.stopping
	in.mu.Unlock()
	if giveBack {
		in.giveBack()
	}
}

// giveBack ends the subscription so that the broker gets back what wasn't settled. Started messages go on; their redelivered
// copies take their outcome over.
func (in *intake) giveBack() {
	in.mu.Lock()
	sub := in.subscriber
	in.subscriber = nil
	for e := range in.active {
		e.kept = !e.void()
	}
	in.lanes.forget()
	in.pause.due = false
	in.mu.Unlock()
	if sub == nil {
		return
	}
	in.log.Warn("messages stand longer than they may stay unsettled; giving the subscription back", "ack_deadline", in.lanes.deadline)
	if err := sub.Close(); err != nil {
		in.log.Warn("closing the subscription", "err", err)
	}
}

// stop takes no more and starts no more; what is started goes on. drained is closed when it is settled.
func (in *intake) stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopping {
		return
	}
	in.stopping = true
	in.endSource()
	for _, e := range in.lanes.forget() {
		e.msg.Nack()
	}
	if in.endIntake != nil {
		in.endIntake()
	}
	in.checkDrained()
}

// drain lets the source run dry: drained is closed when it has ended and everything is settled.
func (in *intake) drain() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.draining = true
	in.endSource()
	in.checkDrained()
}

// endSource keeps the source from being opened again. The lock is held.
func (in *intake) endSource() {
	select {
	case <-in.ending:
	default:
		close(in.ending)
	}
}

// checkDrained closes drained if nothing is left. The lock is held.
func (in *intake) checkDrained() {
	if !in.stopping && !in.draining || in.reading || len(in.active) > 0 || in.lanes.waiting > 0 || len(in.lanes.refused) > 0 || in.lanes.nacked() {
		return
	}
	select {
	case <-in.drained:
	default:
		close(in.drained)
	}
}

// left says what keeps the intake from being drained.
func (in *intake) left() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return fmt.Sprintf("%d messages running, %d waiting", len(in.active), in.lanes.waiting+len(in.lanes.refused))
}

// outage returns why the pipeline is paused, or nil.
func (in *intake) outage() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.pause.on() {
		return nil
	}
	return fmt.Errorf("paused since %s, probing: %w", in.pause.since.Format(time.RFC3339), in.pause.err)
}

// Close ends everything at once. Watermill calls it from Router.Close.
func (in *intake) Close() error {
	in.mu.Lock()
	if in.closing {
		in.mu.Unlock()
		return nil
	}
	in.closing = true
	in.endSource()
	in.pause.end()
	sub := in.subscriber
	if in.endIntake != nil {
		in.endIntake()
	}
	in.mu.Unlock()
	close(in.closed)
	if sub != nil {
		return sub.Close()
	}
	return nil
}
