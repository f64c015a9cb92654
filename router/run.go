package router

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// verdict is what the chain's end means for the message.
type verdict int

const (
	handled     verdict = iota // settled once its outputs are confirmed
	unavailable                // run again when the pipeline works
	cancelled                  // left unsettled
)

// run is one execution of one message: the handlers.Scope on its context.
type run struct {
	in    *intake
	entry *entry
	extra transports.Extra
	// life ends when the run is over, with the pipeline's life, or when the delivery becomes void.
	life   context.Context
	cancel context.CancelCauseFunc
	// base is what the chain got: life, with what Watermill and tracing put on it.
	base  context.Context
	trace *runTrace // nil if nobody traces
	// wait is the delivery's Wait. A redelivered copy may replace entry.delivery meanwhile.
	wait time.Duration

	// verdict and outcome are written by the run's goroutine alone, and by nobody once the run has
	// ended.
	verdict verdict
	outcome transports.Outcome

	mu             sync.Mutex
	swallowed      error
	confirmedHooks []func(context.Context) error
}

// newRun prepares the entry's next execution.
func newRun(in *intake, e *entry) *run {
	r := &run{in: in, entry: e, trace: in.tracing.newRunTrace(e), wait: e.delivery.Wait}
	r.extra = transports.Extra{Headers: e.delivery.Headers, Scope: r}
	r.outcome.ID = e.desc.ID
	r.life, r.cancel = context.WithCancelCause(runValues{r})
	return r
}

// runValues is a context that carries what belongs to a run, and never ends.
type runValues struct{ run *run }

func (runValues) Deadline() (time.Time, bool) { return time.Time{}, false }
func (runValues) Done() <-chan struct{}       { return nil }
func (runValues) Err() error                  { return nil }

func (v runValues) Value(key any) any {
	if transports.IsExtraKey(key) {
		return &v.run.extra
	}
	return nil
}

// message returns the message that the chain gets: the one that was described, and for a rerun a
// new one.
func (r *run) newMessage() *message.Message {
	msg := r.entry.message
	if r.entry.message = nil; msg == nil {
		msg = r.entry.delivery.Message()
	}
	msg.SetContext(r.life)
	return msg
}

// runOf returns the run that a message belongs to.
func runOf(msg *message.Message) *run {
	r, _ := transports.ExtraOf(msg.Context()).Scope.(*run)
	return r
}

func (r *run) Description() handlers.Description { return r.entry.desc }

func (r *run) Base() context.Context { return r.base }

func (r *run) Enqueued() { r.in.markPlaced(r.entry) }

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
	r.confirmedHooks = append(r.confirmedHooks, f)
}

// finish records how the chain ended.
func (r *run) recordEnd(v verdict, msgs []*message.Message, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdict = v
	if err == nil {
		err = r.swallowed
	}
	r.outcome.Messages, r.outcome.Err, r.outcome.Code = msgs, err, statusCode(err)
}

// code is the HTTP status that an error's kind stands for.
func statusCode(err error) int {
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

// publishing is the life of what the run produced: the pipeline's, unless nobody waits for it when
// its caller has gone.
func (r *run) publishContext() context.Context {
	if r.in.source.Impatient {
		return r.life
	}
	return r.in.life
}

// confirm tells those who asked that every output is confirmed. It is false if one of them wants
// the message not to be settled.
func (r *run) runConfirmedHooks() bool {
	r.mu.Lock()
	calls := r.confirmedHooks
	r.confirmedHooks = nil
	r.mu.Unlock()
	for _, f := range calls {
		if f(r.in.life) != nil { // the message stays with its source, which delivers it again
			return false
		}
	}
	return true
}
