// Package device is shared by all transports that connect devices. It has the JSON of commands,
// results, events and data, and it writes frames to each device in order.
//
// A transport such as tcp accepts connections and finds out which device each one belongs to. It
// registers each connection with a [Registry], which makes it a [Session]. The handler deliver
// looks up the transport's [Devices] by name and enqueues frames there.
//
// Start reading at registry.go, then queue.go, request.go and feed.go.
package device

import (
	"context"
	"errors"
	"time"

	"github.com/pentrough/pentrough/transports/protocol"
)

// Errors of Devices.Enqueue. After each of them, no byte of the payload was written.
var (
	// ErrOffline means that the device has no session on this host.
	ErrOffline = errors.New("device has no session")
	// ErrBusy means that the device's queue is full.
	ErrBusy = errors.New("the device's queue is full")
	// ErrPayload means that the framing of this transport can't make a frame of the payload.
	ErrPayload = errors.New("payload cannot be a frame")
	// ErrSession means that the device has another session than EnqueueOptions.Epoch asks for.
	ErrSession = errors.New("the device has another session now")
	// ErrDevice means that the name can't name a device of this transport. An example is a name
	// that isn't an IP address, if addresses identify the devices.
	ErrDevice = errors.New("not a device of this transport")
)

// Devices writes frames to the devices of one transport, in order for each device. It is safe for
// concurrent use.
type Devices interface {
	// Canonical returns the one form of a device's name: "10.0.0.7" for "::ffff:10.0.0.7". For a
	// name that no device can have, it returns an error of kind ErrDevice.
	Canonical(device string) (string, error)

	// Base returns the name of the device that has the connection. It differs from device if that
	// names a unit: it is "modem-1" for "modem-1/3".
	Base(device string) string

	// Check returns an error of kind ErrPayload if the command can't be a frame. The Device of c
	// may name a unit.
	Check(c protocol.Command) error

	// Enqueue puts payload at its place in the device's queue and returns at once. Frames of equal
	// priority are written in the order of the Enqueue calls. The error is of the kind ErrOffline,
	// ErrBusy, ErrPayload, ErrSession or ErrDevice. The payload must not be changed until Wait has
	// returned.
	Enqueue(device string, payload []byte, o EnqueueOptions) (Write, error)

	// Epoch returns the epoch of the device's session, or 0 if the device is offline.
	Epoch(device string) uint64

	// Watch registers f for the life of the transport. After a device gets a session, the
	// transport calls f with its name. f must not block.
	Watch(f func(device string))
}

// EnqueueOptions are the conditions of one write. Under a protocol with a state, the first byte
// counts as written once the protocol has encoded the payload for the next write: its number can't
// be taken back. If the kernel then takes no byte, the write may begin up to Limits.WriteTimeout
// later.
type EnqueueOptions struct {
	// Expires is the latest time at which the first byte may be written. Zero means that there is
	// no such limit.
	Expires time.Time
	// Supersede names the setting that the payload changes. Frames for the same setting that wait
	// in the queue end as Superseded, except a frame of which a byte may have been written. If
	// Supersede is empty, the payload supersedes nothing.
	Supersede string
	// ID is the command's id. The results of commands that this one supersedes quote it, and so do
	// its late answers.
	ID string
	// Request says which answer the device is expected to give; nil means none.
	Request *Request
	// Priority lets the payload overtake frames of lower priority of which no byte is written. The
	// default is 0.
	Priority int
	// Gap is the least time between the last byte of the previous frame and the first byte of this
	// one.
	Gap time.Duration
	// Epoch is the session that the payload is for. If the device has another session, Enqueue
	// returns ErrSession. 0 means any session.
	Epoch uint64
	// Orphaned is called when the device goes offline before the frame's first byte is known to be
	// written. The call happens before the device can get a new session. The caller has locked
	// mutexes: Orphaned must not block and must not call Devices. It may be nil.
	Orphaned func()
	// Times receives the times of the steps if it isn't nil. The caller may read it after Wait has
	// returned.
	Times *Times
}

// Times are the times of the steps of one write. A step that didn't happen has the zero time.
type Times struct {
	// Begun is the start of the write in which the kernel took the frame's first byte.
	Begun time.Time
	// Written is when the kernel had taken the last byte.
	Written time.Time
	// Answered is when the answer arrived.
	Answered time.Time
}

// A Write is one enqueued frame.
type Write interface {
	// Wait blocks until the frame's fate is known. If ctx ends before the first byte is written,
	// Wait removes the frame from the queue and its fate is Cancelled. After the first byte, Wait
	// ignores ctx.
	Wait(ctx context.Context) Written
}

// Written says how a write ended.
type Written struct {
	Fate Fate
	// Epoch is the epoch of the session that the frame was for; 0 means none.
	Epoch uint64
	// Detail is the reason in words, if there is one.
	Detail string
	// Reply is the device's answer, if Fate is Answered.
	Reply string
}

// Fate is how a write ended.
type Fate int

const (
	// Sent means that the kernel took the frame's last byte while the device had this session. It
	// doesn't mean that the device received the frame.
	Sent Fate = iota + 1
	// Expired means that EnqueueOptions.Expires passed before the first byte was written.
	Expired
	// Offline means that the session ended before the first byte was written and the device had no
	// newer session.
	Offline
	// Unknown means that the session ended after the first byte was written and before the last.
	Unknown
	// Cancelled means that the context of Wait ended before the first byte was written.
	Cancelled
	// Superseded means that a newer frame for the same setting arrived before the first byte was
	// written.
	Superseded
	// Answered means that the device answered the request.
	Answered
	// NoReply means that the request was written and no answer came in time.
	NoReply
	// Rejected means that the protocol refused the command when it was about to be written.
	Rejected
)

// Provider is implemented by transports that connect devices.
type Provider interface {
	// Devices returns the transport's devices.
	Devices() Devices
	// CloseSessions ends every session because the host stops. It does so in this order:
	//
	//   - It writes the frames that wait in the queues, until they are empty or ctx ends.
	//   - It ends the sessions and publishes their events.
	//   - It publishes the event that the host stopped.
	//   - It drains the topics events and data (see transports.Drainer).
	CloseSessions(ctx context.Context)
}

// Directory gives each session of a device its epoch, and so decides which session is the newest.
// A host that works alone keeps its directory in memory. Hosts that share their devices share one
// directory.
type Directory interface {
	// Claim makes the caller's session the newest one of the device and returns its epoch. The
	// epoch is greater than every earlier one of the device: max(last+1, heard in Unix
	// milliseconds). It is less than 2^53. heard is the time of the device's last sign of life.
	Claim(ctx context.Context, device string, heard time.Time) (epoch uint64, err error)
	// IsNewest reports whether epoch is the newest one of the device that this host knows. It does
	// no I/O.
	IsNewest(device string, epoch uint64) bool
	// Release gives up the claim on device if epoch is still the newest.
	Release(ctx context.Context, device string, epoch uint64) error
}
