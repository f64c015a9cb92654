package router

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// verdict is what the chain's end means for the message.
type verdict int

const (
	handled     verdict = iota // acked once its outputs are confirmed
	unavailable                // run again when the pipeline works
	cancelled                  // left unsettled
)

// run is one execution of one message: the handlers.Scope on its context.
type run struct {
	in     *intake
	entry  *entry
	base   context.Context
	cancel context.CancelCauseFunc
	trace  *runTrace // nil if nobody traces
	// unwatch ends the watch on the delivery's context.
	unwatch func() bool

	mu        sync.Mutex
	verdict   verdict
	outcome   transports.Outcome
	swallowed error
	confirmed []func(context.Context) error
}

// detached has the life of one context and the values of both, its own first.
type detached struct {
	context.Context
	values context.Context
}

func (d detached) Value(key any) any {
	if v := d.Context.Value(key); v != nil {
		return v
	}
	return d.values.Value(key)
}

func (d detached) String() string { return fmt.Sprintf("%v with values of %v", d.Context, d.values) }

type runKey struct{}

func runFrom(ctx context.Context) *run {
	r, _ := ctx.Value(runKey{}).(*run)
	return r
}

// newRun prepares the entry's next execution. Its context ends with the pipeline's, or when the delivery becomes void.
func newRun(in *intake, e *entry) *run {
	r := &run{in: in, entry: e, trace: in.tracing.run(e)}
	ctx, cancel := context.WithCancelCause(detached{in.life, e.msg.Context()})
	r.base, r.cancel = runContext{ctx, r}, cancel
	r.outcome.ID = e.desc.ID
	return r
}

// runContext carries the run and its scope in one allocation.
type runContext struct {
	context.Context
	run *run
}

func (c runContext) Value(key any) any {
	if _, ok := key.(runKey); ok {
		return c.run
	}
	if handlers.IsScopeKey(key) {
		return handlers.Scope(c.run)
	}
	return c.Context.Value(key)
}

// watch cancels the run when its delivery becomes void, unless it is kept, or publishes what a source that delivers again needn't
// have done twice.
func (r *run) watch() {
	delivery := r.entry.msg.Context()
	r.unwatch = context.AfterFunc(delivery, func() {
		r.in.mu.Lock()
		kept := r.entry.kept || r.entry.publishing && !r.in.source.Impatient
		r.in.mu.Unlock()
		if !kept {
			r.cancel(context.Cause(delivery))
		}
	})
}

func (r *run) Description() handlers.Description { return r.entry.desc }

func (r *run) Base() context.Context { return r.base }

func (r *run) Enqueued() { r.in.enqueued(r.entry) }

func (r *run) Refuse(msg *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	return r.in.refuse(msg, reason)
}

func (r *run) Swallowed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.swallowed = err
}

func (r *run) OnConfirmed(f func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.confirmed = append(r.confirmed, f)
}

// finish records how the chain ended.
func (r *run) finish(v verdict, msgs []*message.Message, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdict = v
	if err == nil {
		err = r.swallowed
	}
	r.outcome.Messages, r.outcome.Err, r.outcome.Code = msgs, err, code(err)
}

// code is the HTTP status that an error's kind stands for.
func code(err error) int {
	if err == nil {
		return 200
	}
	switch handlers.KindOf(err) {
	case handlers.KindDrop:
		return 200
	case handlers.KindPermanent:
		return 400
	case handlers.KindUnavailable:
		return 503
	default:
		return 500
	}
}

// publishing is the life of what the run produced: the pipeline's, unless nobody waits for it when its caller has gone.
func (r *run) publishing() context.Context {
	if r.in.source.Impatient {
		return r.base
	}
	return r.in.life
}

// result is the run's outcome so far.
func (r *run) result() transports.Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outcome
}

// confirm tells those who asked that every output is confirmed. It reports false if one of them wants the message not to be acked.
func (r *run) confirm() bool {
	r.mu.Lock()
	calls := r.confirmed
	r.confirmed = nil
	r.mu.Unlock()
	for _, f := range calls {
		if f(r.in.life) != nil { // it is about the stop, and what is not acked comes again
			return false
		}
	}
	return true
}

// reply answers the one who waits for the message, once it is acked.
func (r *run) reply() {
	if reply := transports.ReplyFrom(r.entry.msg.Context()); reply != nil {
		reply.Settle(r.result())
	}
}

// published notes that something the run produced was confirmed at a destination.
func (r *run) published() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.Published = true
}

// unsendable notes that something the run produced is lost.
func (r *run) unsendable(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.Err = handlers.Permanent(err)
	r.outcome.Code = code(r.outcome.Err)
}

// expect notes where the answer to what the run produced will arrive.
func (r *run) expect(answer <-chan *message.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome.Answer = answer
}
