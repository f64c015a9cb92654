// Package device holds what every transport of devices shares: the JSON of commands, results, events and data, and the
// ordered way to each device through its live session.
//
// A transport such as tcp accepts connections, learns whose they are and hands them to a [Registry] as sessions; the
// deliver handler finds [Devices] there by the transport's name and enqueues frames.
package device

import (
	"context"
	"errors"
	"time"
)

// Errors of Devices.Enqueue. No byte was written for any of them.
var (
	// ErrOffline means that the device has no live session here.
	ErrOffline = errors.New("device has no session")
	// ErrBusy means that the session's queue is full.
	ErrBusy = errors.New("the device's queue is full")
	// ErrPayload means that the payload can never be a frame of this transport.
	ErrPayload = errors.New("payload cannot be a frame")
	// ErrSession means that the device's live session isn't the one that was asked for.
	ErrSession = errors.New("the device has another session by now")
	// ErrDevice means that the name can't be a device of this transport, such as an address that isn't one.
	ErrDevice = errors.New("not a device of this transport")
)

// Devices is the ordered way to the devices of one transport. It is safe for concurrent use.
type Devices interface {
	// Canonical returns the one form under which a device is known ("::ffff:10.0.0.7" is "10.0.0.7"), or an error of kind
	// ErrDevice.
	Canonical(device string) (string, error)

	// Check returns an error of kind ErrPayload if payload can't be a frame.
	Check(payload []byte) error

	// Enqueue gives payload its place in the order of the device's live session, and returns at once. Frames leave in the order
	// of Enqueue calls. The errors are those above.
	Enqueue(device string, payload []byte, o EnqueueOptions) (Write, error)

	// Epoch returns the epoch of the device's live session, 0 if it has none.
	Epoch(device string) uint64

	// Watch has f called with each device that got a session, soon after it did, for as long as the transport lives. f must not block.
	Watch(f func(device string))
}

// EnqueueOptions are the conditions of one write.
type EnqueueOptions struct {
	// Expires is looked at right before the first byte is written; zero is never.
	Expires time.Time
	// Supersede names what the payload sets. Payloads of the same name that wait for the device are Superseded by this one; one of which the
	// connection may have a byte already isn't. Empty: none is.
	Supersede string
	// ID names the command to others: in what is said to those that it supersedes, and on a late answer.
	ID string
	// Request says that the device is to answer; nil: it isn't asked anything.
	Request *Request
	// Priority lets the payload overtake those of less priority of which nothing is written. 0 is what all have that ask for nothing; more is better.
	Priority int
	// Gap is how long the device is left alone before this payload, counted from the last byte of the one before.
	Gap time.Duration
	// Epoch is the session that the payload is for: with another one's the error is ErrSession. 0 is any.
	Epoch uint64
	// Orphaned is called if the device is left without a session while the payload's first byte isn't known to be written, before the device
	// can get another one. Locks are held: it must not block, nor call Devices. nil: nobody asks.
	Orphaned func()
	// Times, if it isn't nil, gets what happened when. It may be read once Wait has returned.
	Times *Times
}

// Times are the steps of one write, zero for those that it didn't come to.
type Times struct {
	// Begun is when the connection was given the frame of which it then took the first byte.
	Begun time.Time
	// Written is when the kernel had taken the last byte.
	Written time.Time
	// Answered is when the answer was there.
	Answered time.Time
}

// A Write is one frame on its way.
type Write interface {
	// Wait blocks until the frame's fate is known. When ctx ends before its first byte was written, the frame is taken out
	// of the queue and the outcome is Cancelled; after the first byte ctx is ignored.
	Wait(ctx context.Context) Written
}

// Written is the fate of a frame.
type Written struct {
	Fate   Fate
	Epoch  uint64
	Detail string
	// Reply is what the device said, if Fate is Answered.
	Reply string
}

// Fate is how a write ended.
type Fate int

const (
	// Sent means that the kernel took the frame's last byte for the live session, no more.
	Sent Fate = iota + 1
	// Expired means that the time was over before the first byte was written.
	Expired
	// Offline means that the session ended before the first byte was written, and no newer session took the frame over.
	Offline
	// Unknown means that the session ended after the first byte and before the last.
	Unknown
	// Cancelled means that the caller's context ended before the first byte was written.
	Cancelled
	// Superseded means that a newer frame took its place before the first byte was written.
	Superseded
	// Answered means that the device answered the question.
	Answered
	// NoReply means that the question was written and the device didn't answer in time.
	NoReply
)

// Provider is implemented by transports that hold devices.
type Provider interface {
	// Devices returns the way to the transport's devices.
	Devices() Devices
	// CloseSessions ends every session for a server shutdown: what is queued is written as far as ctx allows, sessions
	// close, their last events and the host's stopped event go out, and the events and data topics are drained
	// (transports.Drainer) after that.
	CloseSessions(ctx context.Context)
}

// Directory decides which session of a device is the newest. A single host keeps it in memory; several hosts share one.
type Directory interface {
	// Claim makes the caller the holder of device and returns the session's epoch: greater than every earlier one,
	// max(last+1, heard in Unix milliseconds), under 2^53. heard is when the device's last sign of life came.
	Claim(ctx context.Context, device string, heard time.Time) (epoch uint64, err error)
	// Release gives device up if epoch is still its newest.
	Release(ctx context.Context, device string, epoch uint64) error
}
