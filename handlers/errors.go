package handlers

import (
	"errors"
	"time"
)

// Kind says what the host does with an error.
type Kind int

const (
	// KindRetryable is the kind of an error without a mark: the message may succeed later. The
	// middleware retry runs it again and counts the attempts. After the last one the message goes
	// to poison, or the host drops and counts it.
	KindRetryable Kind = iota
	// KindPermanent means that the message can never succeed. It isn't retried: it goes to poison,
	// or the host drops and counts it.
	KindPermanent
	// KindDrop means that the handler wants no outputs: the message is acked.
	KindDrop
	// KindUnavailable means that something that the handler needs doesn't work; the message is not
	// at fault. The pipeline pauses, is not ready, and runs the same message again until it
	// succeeds.
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

// RetryAfter marks an error with the time before which another attempt is useless, as a server
// says with Retry-After. It doesn't change the error's kind. The middleware retry and a paused
// pipeline wait for d, within their own limits. RetryAfter returns nil for nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil || d <= 0 {
		return err
	}
	return &delayError{err, d}
}

// RetryAfterOf returns the time of the outermost [RetryAfter] in an error's tree, or 0.
func RetryAfterOf(err error) time.Duration {
	if e, ok := errors.AsType[*delayError](err); ok {
		return e.delay
	}
	return 0
}
