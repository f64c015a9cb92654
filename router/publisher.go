package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
)

const (
	// publishRetry and publishRetryMax are the first and the longest pause after a failed publish.
	publishRetry    = 50 * time.Millisecond
	publishRetryMax = 2 * time.Second
	// answerGrace is how long the transport still expects the answer when the caller no longer
	// waits.
	answerGrace = time.Minute
)

// publisher publishes the outputs of one pipeline. It tries to publish each message until the
// destination has confirmed it. The message has the same id in all attempts.
type publisher struct {
	pipeline   string
	to         transports.TopicRef
	transports map[string]transports.Transport
	log        *slog.Logger
	metrics    *pipelineMetrics
	tracing    *pipelineTracing
	// life ends at the deadline of a stop. Then all attempts end, too.
	life context.Context

	mu           sync.Mutex
	destinations map[transports.TopicRef]*destination
}

// destination is one topic that the pipeline publishes to.
type destination struct {
	ref       transports.TopicRef
	topic     string
	publisher message.Publisher
	answerer  transports.Answerer // nil if the transport isn't one
	acceptor  transports.Acceptor // nil if the transport isn't one

	state *outage.Outage
}

// publish publishes the outputs of a run in order. It returns an error only if the pipeline's life
// has ended, the caller that waits for the outputs has hung up, or a destination can never work.
func (p *publisher) publish(r *run, msgs []*message.Message) error {
	for len(msgs) > 0 {
		ref := p.destinationOf(msgs[0])
		n := 1
		for n < len(msgs) && p.destinationOf(msgs[n]) == ref {
			n++
		}
		if ref != "" {
			if len(msgs) == 1 {
				p.expectAnswer(r, ref, msgs[0])
			}
			if err := p.sendOutputs(r, ref, msgs[:n]); err != nil {
				return err
			}
		}
		msgs = msgs[n:]
	}
	return nil
}

// sendOutputs publishes outputs of a run to one destination. It drops and logs a message that can
// never be sent. The handler has done its work, and later messages mustn't wait for this one.
func (p *publisher) sendOutputs(r *run, ref transports.TopicRef, msgs []*message.Message) error {
	span := p.tracing.beginPublish(r.base, ref, msgs)
	err := p.sendUntilConfirmed(r.publishContext(), ref, msgs)
	endPublish(span, err)
	switch {
	case err == nil:
		r.outcome.Published = true
		return nil
	case !errors.Is(err, transports.ErrUnsendable):
		return err
	case len(msgs) > 1:
		for _, msg := range msgs {
			if err := p.sendOutputs(r, ref, []*message.Message{msg}); err != nil {
				return err
			}
		}
		return nil
	default:
		r.entry.logger(p.log, msgs[0]).Error("dropping an output that can never be sent", "err", err)
		p.metrics.dropped.Inc()
		err = handlers.Permanent(err)
		r.outcome.Err, r.outcome.Code = err, statusCode(err)
		return nil
	}
}

// destinationOf returns the topic of a message. It is empty if the message goes nowhere.
func (p *publisher) destinationOf(msg *message.Message) transports.TopicRef {
	if ref := handlers.Destination(msg); ref != "" {
		return ref
	}
	return p.to
}

// checkDestinations returns a permanent error if the destination of a message can never work.
func (p *publisher) checkDestinations(msgs []*message.Message) error {
	for _, msg := range msgs {
		if ref := p.destinationOf(msg); ref != "" {
			if _, err := p.resolveDestination(ref); err != nil {
				return handlers.Permanent(err)
			}
		}
	}
	return nil
}

// attemptPublish publishes once. If the transport panics, the attempt has failed.
func (d *destination) attemptPublish(msgs []*message.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %w", transports.ErrUndecided, panicError{v})
		}
	}()
	return d.publisher.Publish(d.topic, msgs...)
}

// sendUntilConfirmed publishes messages to one destination, and tries again until the destination
// has confirmed them. It gives up when ctx ends, or if the messages can never be sent.
func (p *publisher) sendUntilConfirmed(ctx context.Context, ref transports.TopicRef, msgs []*message.Message) error {
	d, err := p.resolveDestination(ref)
	if err != nil {
		return err
	}
	for pauses := backoff.New(publishRetry, publishRetryMax); ; {
		err := d.attemptPublish(msgs)
		if err == nil {
			d.state.Report(nil)
			p.metrics.published.Add(float64(len(msgs)))
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, transports.ErrUnsendable) {
			return fmt.Errorf("publishing to %s: %w", ref, err)
		}
		d.state.Report(err)
		p.metrics.publishRetries.Inc()
		if !backoff.Sleep(ctx, pauses.NextBackOff()) {
			return fmt.Errorf("publishing to %s: %w", ref, err)
		}
	}
}

// expectAnswer makes sure that the caller of a run gets the answer to msg, the run's only output.
// It does nothing if no caller waits or the destination can't receive answers.
func (p *publisher) expectAnswer(r *run, ref transports.TopicRef, msg *message.Message) {
	if r.answerWait <= 0 {
		return
	}
	d, err := p.resolveDestination(ref)
	if err != nil || d.answerer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.life, r.answerWait+answerGrace)
	replyTo, correlationID, answer, forget, err := d.answerer.Expect(ctx)
	if err != nil {
		cancel()
		p.log.Warn("no answer can be received; the caller gets status 202 and the id instead", "to", d.ref, "err", err)
		return
	}
	context.AfterFunc(ctx, func() { forget(); cancel() })
	if msg.Metadata == nil {
		msg.Metadata = message.Metadata{}
	}
	msg.Metadata[transports.ReplyTo] = replyTo
	msg.Metadata[transports.CorrelationID] = correlationID
	r.outcome.Answer = answer
}

// resolveDestination returns the destination that a reference names.
func (p *publisher) resolveDestination(ref transports.TopicRef) (*destination, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d, ok := p.destinations[ref]; ok {
		return d, nil
	}
	name, topic, err := ref.Split()
	if err != nil {
		return nil, err
	}
	t, ok := p.transports[name]
	if !ok {
		return nil, fmt.Errorf("publishing to %s: there is no transport %q", ref, name)
	}
	pub, err := t.Publisher(transports.Producer{Pipeline: p.pipeline, Topic: topic})
	if err != nil {
		return nil, fmt.Errorf("publishing to %s: %w", ref, err)
	}
	d := &destination{ref: ref, topic: topic, publisher: pub}
	d.state = outage.New(p.log.With("to", ref), "publishing")
	d.answerer, _ = t.(transports.Answerer)
	d.acceptor, _ = t.(transports.Acceptor)
	p.destinations[ref] = d
	return d, nil
}

// publishesTo reports whether the pipeline has published to a topic, or is configured to.
func (p *publisher) publishesTo(ref transports.TopicRef) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.destinations[ref]
	return ok
}

// pluginPublisher returns a publisher for a handler or middleware. It gives a publish up when the
// context of the first message ends.
func (p *publisher) pluginPublisher(ref transports.TopicRef) (message.Publisher, error) {
	if _, err := p.resolveDestination(ref); err != nil {
		return nil, err
	}
	return &boundPublisher{p, ref}, nil
}

// boundPublisher is a publisher to one topic.
type boundPublisher struct {
	*publisher
	ref transports.TopicRef
}

func (l *boundPublisher) Publish(_ string, msgs ...*message.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(msgs[0].Context())
	defer cancel(nil)
	defer context.AfterFunc(l.life, func() { cancel(context.Cause(l.life)) })()
	span := l.tracing.beginPublish(ctx, l.ref, msgs)
	err := l.sendUntilConfirmed(ctx, l.ref, msgs)
	endPublish(span, err)
	return err
}

// Close does nothing: the pipeline closes the publisher.
func (l *boundPublisher) Close() error { return nil }

// Close closes the publishers of all destinations.
func (p *publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, d := range p.destinations {
		errs = append(errs, d.publisher.Close())
	}
	clear(p.destinations)
	return errors.Join(errs...)
}

// outages returns an error for each destination that takes no messages now.
func (p *publisher) outages() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, d := range p.destinations {
		if err := d.outage(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// refusalReason returns why an output of the pipeline would have to wait now, or nil.
func (p *publisher) refusalReason() error {
	p.mu.Lock()
	d := p.destinations[p.to]
	p.mu.Unlock()
	if d == nil || d.acceptor == nil {
		return nil
	}
	return d.acceptor.Accepts(d.topic)
}

// outage returns why the destination takes no messages now, or nil.
func (d *destination) outage() error {
	if err := d.state.Err(); err != nil {
		return fmt.Errorf("publishing to %s since %s, trying again: %w", d.ref, d.state.Since().Format(time.RFC3339), err)
	}
	if d.acceptor != nil {
		if err := d.acceptor.Accepts(d.topic); err != nil {
			return fmt.Errorf("publishing to %s: %w", d.ref, err)
		}
	}
	return nil
}
