package handlers

import (
	"errors"
	"time"
)

// Kind says what the host does with an error.
type Kind int

const (
	// KindRetryable is every error without another kind: this message may work later. The retry middleware runs it again and counts;
	// what is left goes to poison, or is dropped and counted.
	KindRetryable Kind = iota
	// KindPermanent will never work: it is not retried, and goes to poison, or is dropped and counted.
	KindPermanent
	// KindDrop is done on purpose: the message is acked without outputs.
	KindDrop
	// KindUnavailable is an outage of something that the handler needs, not the message's fault: the pipeline pauses, is not ready,
	// and runs the same message again until it works.
	KindUnavailable
)

func (k Kind) String() string {
	switch k {
	case KindPermanent:
		return "permanent"
	case KindDrop:
		return "drop"
	case KindUnavailable:
		return "unavailable"
	default:
		return "retryable"
	}
}

type kindError struct {
	kind Kind
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

// Permanent marks an error as KindPermanent. It returns nil for nil.
func Permanent(err error) error { return mark(KindPermanent, err) }

// Drop marks an error as KindDrop; err says why the message needs nothing. It returns nil for nil.
func Drop(err error) error { return mark(KindDrop, err) }

// Unavailable marks an error as KindUnavailable. It returns nil for nil.
func Unavailable(err error) error { return mark(KindUnavailable, err) }

func mark(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kindError{kind: kind, err: err}
}

// KindOf returns the kind of an error: that of the outermost mark in its tree.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*kindError](err); ok {
		return e.kind
	}
	return KindRetryable
}

type delayError struct {
	err   error
	delay time.Duration
}

func (e *delayError) Error() string { return e.err.Error() }
func (e *delayError) Unwrap() error { return e.err }

// RetryAfter says of an error that nothing is gained by another try before d has passed, as a server's Retry-After does. Its kind stays what it
// was. The retry middleware and a pipeline that pauses wait that long, within their own limits. It returns nil for nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil || d <= 0 {
		return err
	}
	return &delayError{err, d}
}

// RetryAfterOf returns what the outermost [RetryAfter] in an error's tree says, or 0.
func RetryAfterOf(err error) time.Duration {
	if e, ok := errors.AsType[*delayError](err); ok {
		return e.delay
	}
	return 0
}
