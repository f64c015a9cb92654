package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// cancelGrace is how long a stop waits for the runs that it has cancelled.
const cancelGrace = time.Second

// closeTimeout bounds Watermill's Router.Close. A stop calls this method when everything is
// settled, or when no time is left for settling.
const closeTimeout = 2 * time.Second

// pipeline is one running pipeline: an intake, a chain in a Watermill Router of its own, and a
// publisher.
type pipeline struct {
	config  Pipeline
	source  transports.Transport
	handler handlers.Handler
	refuser handlers.Refuser
	handle  message.HandlerFunc
	// chain calls the middleware and the handler.
	chain       atomic.Pointer[message.HandlerFunc]
	intake      *intake
	builtIntake atomic.Pointer[intake] // nil until the intake is built
	out         *publisher
	watermill   *message.Router
	log         *slog.Logger
	metrics     *pipelineMetrics
	tracing     *pipelineTracing
	closers     []io.Closer
	gather      *gather
	// redactText is Config.Redact.
	redactText func(string) string
	// life ends at the deadline of a stop.
	life    context.Context
	end     context.CancelCauseFunc
	ran     chan error // receives the error of Watermill's Run
	started bool
}

// newPipeline builds a pipeline without any I/O.
func newPipeline(c Pipeline, h *Host) (*pipeline, error) {
	p := &pipeline{config: c, ran: make(chan error, 1), redactText: h.config.Redact}
	p.log = h.log.With("pipeline", c.Name)
	p.metrics = h.metrics.pipeline(c.Name)
	p.tracing = newPipelineTracing(h.config, c)
	p.life, p.end = context.WithCancelCause(context.Background())
	from, topic, err := c.From.Split()
	if err != nil {
		return nil, err
	}
	source, ok := h.transports[from]
	if !ok {
		return nil, fmt.Errorf("from %s: there is no transport %q", c.From, from)
	}
	p.source = source.Transport
	traits, err := source.config.Topic(topic, transports.Consume)
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", c.From, err)
	}
	p.out = &publisher{
		pipeline: c.Name, to: c.To, transports: h.transportsByName(), log: p.log, metrics: p.metrics, tracing: p.tracing, life: p.life,
		destinations: map[transports.TopicRef]*destination{},
	}
	if c.To != "" {
		if _, err := p.out.resolveDestination(c.To); err != nil {
			return nil, err
		}
	}
	if err := p.buildHandler(h); err != nil {
		return nil, err
	}
	describe, err := newDescribe(p.handler, c.Key)
	if err != nil {
		return nil, err
	}
	p.intake = newIntake(&intake{
		topic: topic, source: traits, describe: p.recoverDescribe(describe), refuse: p.refuse, refusalReason: p.out.refusalReason,
		open: func(present func(bool)) (transports.Subscriber, error) {
			return p.source.Subscriber(transports.Consumer{Pipeline: c.Name, Competing: c.Competing, Present: present})
		},
		log: p.log, metrics: p.metrics, tracing: p.tracing, life: p.life, inFlight: h.config.Memory.InFlight,
	}, newLanes(traits.Window, c.Lanes, p.refuser != nil))
	p.builtIntake.Store(p.intake)
	p.intake.answerer, _ = p.source.(transports.Answerer)
	if err := p.buildChain(h, topic); err != nil {
		return nil, err
	}
	if holder, ok := p.handler.(handlers.Holder); ok && p.intake.abandoned != nil && h.config.Ledger.Durable() {
		p.intake.holds = newHolds(&holds{
			pipeline: c.Name, ledger: h.config.Ledger, handler: holder, inject: p.intake.addReleased, log: p.log, now: h.config.Now, gauge: p.metrics.held,
			closed: p.intake.closed, life: p.life,
		}, max(traits.Window/2, 1), p.intake.lanes.limit)
	}
	return p, nil
}

// buildHandler builds the pipeline's handler.
func (p *pipeline) buildHandler(h *Host) error {
	c := p.config.Handler
	built, err := c.Config.New(handlers.Env{
		Pipeline: p.config.Name, Host: h.config.Name, Logger: p.log.With("handler", c.Type), Now: h.config.Now,
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": p.config.Name}, h.config.Registerer),
		Tracer:     h.config.Tracer, Publisher: p.out.pluginPublisher, Devices: h.devicesOf,
		Inventory: func(ref handlers.DevicesRef) device.Inventory { return h.inventory[ref] }, DeadLetters: h.config.DeadLetters,
		HTTP: h.config.HTTP, Source: p.sourceState,
	})
	if err != nil {
		return fmt.Errorf("building handler %s: %w", c.Type, err)
	}
	p.handler, p.handle = built, built.Handle
	p.refuser, _ = built.(handlers.Refuser)
	if b, ok := built.(handlers.BatchHandler); ok {
		p.gather = newGather(p.life, b, p.config.Batch)
		p.handle = p.gather.Handle
	}
	p.addCloser(built)
	return nil
}

// sourceState returns the state of the source. Before the intake is built, it returns the zero
// value.
func (p *pipeline) sourceState() handlers.Source {
	in := p.builtIntake.Load()
	if in == nil {
		return handlers.Source{}
	}
	return in.sourceState(time.Now())
}

// buildChain builds the chain and the Watermill Router that calls process for each message. The
// Router has no publisher. process publishes the outputs and settles the delivery itself, in the
// goroutine that Watermill starts for the message.
func (p *pipeline) buildChain(h *Host, topic string) error {
	wraps := []message.HandlerMiddleware{p.recoverPanic}
	for _, m := range p.config.Middleware {
		built, err := m.Config.New(middleware.Env{
			Pipeline: p.config.Name, Name: m.Name, From: p.config.From, Handler: p.config.Handler.Type,
			Logger: p.log.With("middleware", m.Name), Now: h.config.Now,
			Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": p.config.Name}, h.config.Registerer),
			Publisher:  p.out.pluginPublisher, Ledger: h.config.Ledger, Presence: p.intake.presence.elapsed,
		})
		if err != nil {
			return fmt.Errorf("building middleware %s: %w", m.Name, err)
		}
		if r, ok := built.(middleware.Rememberer); ok {
			p.intake.abandoned = newAbandoned(p.config.Name, h.config.Ledger, r.BegunTimeout())
		}
		wraps = append(wraps, built.Wrap)
		p.addCloser(built)
	}
	chain := message.HandlerFunc(p.callHandler)
	for _, wrap := range slices.Backward(append(wraps, p.tracing.traceCalls, p.recoverPanic)) {
		chain = wrap(chain)
	}
	p.chain.Store(&chain)
	var err error
	p.watermill, err = message.NewRouter(message.RouterConfig{CloseTimeout: closeTimeout}, quietLogger{p.log})
	if err != nil {
		return err
	}
	p.watermill.AddHandler(p.config.Name, topic, p.intake, "", nil, p.process)
	return nil
}

// addCloser records a part that has a Close method, so that the pipeline closes it at its end.
func (p *pipeline) addCloser(part any) {
	if c, ok := part.(io.Closer); ok {
		p.closers = append(p.closers, c)
	}
}

// callHandler is the innermost part of the chain. It calls the handler, which handles the message
// or refuses it.
func (p *pipeline) callHandler(msg *message.Message) ([]*message.Message, error) {
	if r := runOf(msg); r.entry.reason != "" {
		p.metrics.refused.Inc()
		return p.refuse(msg, r.entry.reason)
	}
	msgs, err := p.handle(msg)
	if err == nil {
		err = p.out.checkDestinations(msgs)
	}
	return msgs, err
}

// refuse returns the handler's outputs for a message that it refuses.
func (p *pipeline) refuse(msg *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	if p.refuser == nil {
		return nil, handlers.Permanent(errors.New(string(reason)))
	}
	return p.recoverPanic(func(msg *message.Message) ([]*message.Message, error) {
		return p.refuser.Refuse(msg.Context(), msg, reason)
	})(msg)
}

// process runs the chain with a message, publishes the outputs and ends the run. Watermill calls
// it for each message that the intake started.
func (p *pipeline) process(msg *message.Message) ([]*message.Message, error) {
	growStack()
	r, done := runOf(msg), false
	// After a panic the run must end, too: otherwise it would block its lane. Without this
	// function, Watermill would recover the panic, and the intake wouldn't notice it.
	defer func() {
		if v := recover(); v != nil {
			done = false
			r.recordEnd(unavailable, nil, handlers.Unavailable(p.logPanic("publishing the outputs of", msg, v)))
		}
		p.intake.settleRun(r, done)
	}()
	p.intake.startMore()
	p.tracing.beginRun(r, msg)
	r.base = msg.Context()
	done = p.runChain(msg, r)
	return nil, nil
}

// stackRoom is as large as the stack of a usual run.
type stackRoom [5 << 10]byte

// growStack lets the stack of Watermill's new goroutine grow at once, while it is nearly empty. If
// it grew later, deep in the calls of a handler, copying it would take a seventh of the CPU time
// of a command.
//
//go:noinline
func growStack() {
	var r stackRoom
	r.occupy()
}

//go:noinline
func (*stackRoom) occupy() {}

// runChain calls the chain with a message and publishes the outputs. done says that the message
// needs no other run.
func (p *pipeline) runChain(msg *message.Message, r *run) (done bool) {
	// The pipeline's life ends a moment before cancelRuns cancels its runs.
	if err := cmp.Or(context.Cause(r.life), context.Cause(p.life)); err != nil {
		r.recordEnd(cancelled, nil, err)
		return false
	}
	begun := time.Now()
	msgs, err := (*p.chain.Load())(msg)
	p.metrics.duration.Observe(time.Since(begun).Seconds())
	if err == nil && slices.Contains(msgs, nil) {
		err = handlers.Permanent(errors.New("a middleware returned nil in place of a message"))
	}
	if err != nil {
		msgs = nil
	}
	switch {
	case !p.intake.beginPublishing(r, msgs):
		r.recordEnd(cancelled, nil, context.Cause(r.life))
		return false
	case err != nil:
		return p.finishWithError(msg, r, err) && r.runConfirmedHooks()
	}
	p.prepareOutputs(msg, msgs, r)
	r.recordEnd(handled, msgs, nil)
	return p.out.publish(r, msgs) == nil && r.runConfirmedHooks()
}

// finishWithError ends a run whose chain returned an error. done says that the message needs no
// other run.
func (p *pipeline) finishWithError(msg *message.Message, r *run, err error) (done bool) {
	kind := handlers.KindOf(err)
	switch {
	case kind == handlers.KindDrop:
		r.entry.logger(p.log, msg).Debug("message dropped on purpose", "err", err)
	case kind == handlers.KindUnavailable || !p.config.DropErrors:
		r.recordEnd(unavailable, nil, handlers.Unavailable(err))
		return p.intake.source.Impatient && fromSource(r.entry)
	default:
		p.metrics.errors.Inc()
		r.entry.logger(p.log, msg).Warn("message dropped", "kind", kind, "err", err)
	}
	p.metrics.dropped.Inc()
	r.recordEnd(handled, nil, err)
	return true
}

// prepareOutputs sets the metadata that outputs inherit from the message, and gives each output a
// context that doesn't end with the run.
func (p *pipeline) prepareOutputs(in *message.Message, out []*message.Message, r *run) {
	for _, msg := range out {
		for _, key := range [...]string{transports.CorrelationID, transports.TraceParent, transports.TraceState} {
			if value := in.Metadata[key]; value != "" && msg.Metadata[key] == "" {
				if msg.Metadata == nil {
					msg.Metadata = message.Metadata{}
				}
				msg.Metadata[key] = value
			}
		}
		ctx := r.publishContext()
		if x := transports.ExtraOf(msg.Context()); x.Headers != nil || x.Destination != "" {
			ctx = transports.WithExtra(ctx, &transports.Extra{Headers: x.Headers, Destination: x.Destination})
		}
		msg.SetContext(ctx)
	}
}

// panicError is the error for a panic in a handler or middleware. It is retryable.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// logPanic logs a panic with its stack, and returns it as an error.
func (p *pipeline) logPanic(doing string, msg *message.Message, v any) error {
	transports.Traced(p.log, msg.Metadata).Error("panic while "+doing+" a message", "uuid", msg.UUID, "panic", v, "stack", string(debug.Stack()))
	return panicError{v}
}

// recoverPanic turns panics into errors, and removes secrets from the texts of errors.
func (p *pipeline) recoverPanic(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (msgs []*message.Message, err error) {
		defer func() {
			if v := recover(); v != nil {
				msgs, err = nil, p.logPanic("handling", msg, v)
			}
			err = p.redactError(err)
		}()
		return next(msg)
	}
}

// redactError returns an error whose text has no secrets.
func (p *pipeline) redactError(err error) error {
	if err == nil || p.redactText == nil {
		return err
	}
	whole := err.Error()
	if text := p.redactText(whole); text != whole {
		return &redactedError{text, err}
	}
	return err
}

// redactedError is an error whose text has no secrets. Its kind and its cause are those of the
// original error.
type redactedError struct {
	text  string
	cause error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.cause }

// recoverDescribe turns a panic in describe into an error.
func (p *pipeline) recoverDescribe(describe func(*message.Message) (handlers.Description, error)) func(*message.Message) (handlers.Description, error) {
	return func(msg *message.Message) (d handlers.Description, err error) {
		defer func() {
			if v := recover(); v != nil {
				d, err = handlers.Description{}, p.logPanic("describing", msg, v)
			}
		}()
		return describe(msg)
	}
}

// start starts the handler and subscribes. It returns when messages can arrive.
func (p *pipeline) start(ctx context.Context) error {
	if s, ok := p.handler.(handlers.Starter); ok {
		if err := s.Start(ctx); err != nil {
			return fmt.Errorf("pipeline %s: %w", p.config.Name, err)
		}
	}
	go func() { p.ran <- p.watermill.Run(context.Background()) }()
	select {
	case <-p.watermill.Running():
		p.started = true
		return nil
	case err := <-p.ran:
		return fmt.Errorf("pipeline %s: %w", p.config.Name, err)
	}
}

// handlingError returns why messages can't be handled now. It returns nil if they can be handled,
// or if the pipeline doesn't know.
func (p *pipeline) handlingError() error {
	if r, ok := p.handler.(handlers.Reporter); ok {
		if err := r.Health(); err != nil {
			return err
		}
	}
	return p.intake.pauseError()
}

// quiesce ends the intake of messages. If the source is inside the host, the intake first takes
// all messages that the source has.
func (p *pipeline) quiesce() {
	if d, ok := p.source.(transports.Drainer); ok {
		p.intake.drain()
		d.Drain(p.intake.topic)
		return
	}
	p.intake.stop()
}

// close cancels the pipeline's runs and closes its parts. It returns early when ctx ends. A stop
// calls it when everything is settled, or when no time is left for settling.
func (p *pipeline) close(ctx context.Context) error {
	p.end(errStopped)
	p.intake.stop()
	cancelled, cancel := context.WithTimeout(ctx, cancelGrace)
	defer cancel()
	waitFor(cancelled, p.intake.drained)
	closed := make(chan error, 1)
	go func() { closed <- p.closeParts() }()
	var err error
	select {
	case err = <-closed:
	case <-ctx.Done():
		err = errors.New("its source or its handler didn't end in time")
	}
	if err != nil {
		return fmt.Errorf("closing pipeline %s: %w", p.config.Name, err)
	}
	return nil
}

// closeParts closes the pipeline's parts, and returns when all of them have ended.
func (p *pipeline) closeParts() error {
	// Watermill doesn't always close the subscriber if its Router is closed right after the start.
	err := p.intake.Close()
	if p.started {
		err = errors.Join(err, p.watermill.Close(), <-p.ran)
	}
	err = errors.Join(err, p.out.Close())
	p.intake.work.Wait()
	if p.gather != nil {
		p.gather.work.Wait()
	}
	for _, c := range p.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

// quietLogger logs Watermill's lines at level debug. The router has lines of its own for
// everything that matters.
type quietLogger struct{ log *slog.Logger }

func (q quietLogger) Error(msg string, err error, fields watermill.LogFields) {
	q.Debug(msg, fields.Add(watermill.LogFields{"err": err}))
}

func (q quietLogger) Info(msg string, fields watermill.LogFields) { q.Debug(msg, fields) }

func (q quietLogger) Debug(msg string, fields watermill.LogFields) {
	if !q.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	args := make([]any, 0, 2*len(fields))
	for k, v := range fields {
		args = append(args, k, v)
	}
	q.log.Debug(msg, args...)
}

func (q quietLogger) Trace(string, watermill.LogFields) {}

func (q quietLogger) With(fields watermill.LogFields) watermill.LoggerAdapter {
	args := make([]any, 0, 2*len(fields))
	for k, v := range fields {
		args = append(args, k, v)
	}
	return quietLogger{q.log.With(args...)}
}
