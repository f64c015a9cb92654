package router

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// verdict says what the end of the chain means for the message.
type verdict int

const (
	handled     verdict = iota // acked when its outputs are confirmed
	unavailable                // runs again, after the pause of the pipeline
	cancelled                  // stays with its source
)

// run is one run of a message. It is the handlers.Scope in the context of that message.
type run struct {
	in    *intake
	entry *entry
	extra transports.Extra
	// life ends when the run has ended, the pipeline's life ends, or the delivery becomes void.
	life   context.Context
	cancel context.CancelCauseFunc
	// base is the context that the chain received: life, with values of Watermill and tracing.
	base  context.Context
	trace *runTrace // nil without tracing
	// answerWait is Delivery.Wait of the delivery that the run started with. Later the entry may
	// have another delivery.
	answerWait time.Duration

	// verdict and outcome are written only by the run's goroutine, and never after the run has
	// ended.
	verdict verdict
	outcome transports.Outcome

	mu             sync.Mutex
	swallowed      error
	confirmedHooks []func(context.Context) error
}

// newRun returns the next run of an entry.
func newRun(in *intake, e *entry) *run {
	r := &run{in: in, entry: e, trace: in.tracing.newRunTrace(e), answerWait: e.delivery.Wait}
	r.extra = transports.Extra{Headers: e.delivery.Headers, Scope: r}
	r.outcome.ID = e.desc.ID
	r.life, r.cancel = context.WithCancelCause(runValues{r})
	return r
}

// runValues is a context that carries the run's transports.Extra, and never ends.
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

// newMessage returns the message for the chain. The first run gets the message that was described.
// A later run gets a new one.
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

// recordEnd records how the chain ended.
func (r *run) recordEnd(v verdict, msgs []*message.Message, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdict = v
	if err == nil {
		err = r.swallowed
	}
	r.outcome.Messages, r.outcome.Err, r.outcome.Code = msgs, err, statusCode(err)
}

// statusCode returns the HTTP status for an error, by its kind.
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

// publishContext returns the context for publishing the run's outputs. It ends with the pipeline's
// life. If the source's callers can't wait, it also ends when the caller hangs up.
func (r *run) publishContext() context.Context {
	if r.in.source.Impatient {
		return r.life
	}
	return r.in.life
}

// runConfirmedHooks calls the functions of handlers.OnConfirmed. It returns false if one of them
// returned an error, so that the message isn't acked.
func (r *run) runConfirmedHooks() bool {
	r.mu.Lock()
	calls := r.confirmedHooks
	r.confirmedHooks = nil
	r.mu.Unlock()
	for _, f := range calls {
		if f(r.in.life) != nil { // the source redelivers the message
			return false
		}
	}
	return true
}
