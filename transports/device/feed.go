package device

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/transports"
)

// This file is the feed: it publishes events and data to the pipelines that consume them.
//
// Every consumer is a subscriber (subscriber.go). It has a backlog (backlog.go) of each topic that
// it consumes. Publishing adds a record to the backlogs; a goroutine of the subscription delivers
// the records from there.
//
// A record has these states for each consumer:
//   - waiting: it is in the backlog.
//   - unsettled: it is delivered. A nack puts it back at its place in the backlog.
//   - gone: it was acked, replaced by a newer event of its device, or dropped at a bound.
//
// A slow consumer has different effects on the two topics. Publishing an event never blocks:
// events are replaced and then dropped. Publishing data blocks the goroutine that reads from the
// device, unless DropOldest is set.
//
// Invariants:
//   - A consumer receives the records of a device in the order of their publication.
//   - All consumers of data get a frame, or none does and the publisher waits.
//   - At most window deliveries of a subscription are unsettled.
//
// feed.mu guards all subscribers and backlogs. It is the last lock in the order of registry.go.

// FeedOptions configure the topics and limit what is kept for slow consumers.
type FeedOptions struct {
	// EventsWindow and DataWindow are the windows of a consumer of each topic.
	EventsWindow, DataWindow int
	// EventsBacklog is a number of waiting events. If that many wait for a consumer, a new event
	// replaces the older ones of its device.
	EventsBacklog int
	// EventsTotal is the most events that may wait for a consumer. Beyond it, the oldest are
	// dropped.
	EventsTotal int
	// DataPerDevice and DataTotal are the most data messages that may wait for a consumer, of one
	// device and in all.
	DataPerDevice, DataTotal int
	// DropOldest means that the oldest data is dropped at a bound. Otherwise the host stops
	// reading from the device until there is room.
	DropOldest bool
	// Memory has the byte budgets. Waiting limits the data in all backlogs, and InFlight the
	// unsettled messages.
	Memory transports.Memory
	// Heartbeat is the time between two heartbeats of the host.
	Heartbeat time.Duration
}

// The transports.Type of messages that carry an Event or a Data.
const (
	TypeEvent = "event"
	TypeData  = "data"
)

// feed publishes events and data to their consumers. Every consumer gets every record. Without
// consumers, nothing is kept.
type feed struct {
	hostName   string
	generation uint64
	options    FeedOptions
	now        func() time.Time
	metrics    *metrics
	log        *slog.Logger

	taps   transports.Taps
	tapped atomic.Int32 // the number of taps; without taps, no record is encoded for them

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	drained     map[string]bool
	hostSeq     uint64
	lossLogged  bool
	// confirmations has the functions that runConfirmations calls, in order.
	confirmations []func()
	confirming    sync.WaitGroup
}

func newFeed(host string, generation uint64, o FeedOptions, now func() time.Time, m *metrics, log *slog.Logger) *feed {
	return &feed{
		hostName: host, generation: generation, options: o, now: now, metrics: m, log: log,
		subscribers: map[*subscriber]struct{}{}, drained: map[string]bool{},
	}
}

// record is an event or data that waits for consumers. It is encoded when it is delivered.
type record interface {
	// deviceName returns the device, or "" for an event of the host.
	deviceName() string
	// size returns roughly how many bytes of memory the record takes.
	size() int
	// newDelivery returns a delivery with the record's JSON.
	newDelivery(f *feed) *transports.Delivery
}

type eventRecord struct{ event Event }

func (r *eventRecord) deviceName() string { return r.event.Device }

// size is 0: an event is small, so the bound on their number is enough.
func (r *eventRecord) size() int { return 0 }

func (r *eventRecord) newDelivery(f *feed) *transports.Delivery {
	e := r.event
	e.EventID = f.messageID(e.Device, e.Epoch, e.Seq)
	return deliveryOf(e.EventID, TypeEvent, e.Device, e.Time, e.AppendJSON(make([]byte, 0, 384)))
}

type dataRecord struct {
	device     string
	epoch, seq uint64
	payload    string
	kind       string
	partial    bool
	lateFor    string
	time       time.Time
	// confirmed is called when all consumers have settled the record; it may be nil. unconfirmed
	// is the number of consumers that haven't settled it yet.
	confirmed   func()
	unconfirmed int
}

func (r *dataRecord) deviceName() string { return r.device }

func (r *dataRecord) size() int { return len(r.payload) + len(r.kind) + len(r.lateFor) }

// recordSettled records that a consumer has settled a record. f.mu is locked.
func (f *feed) recordSettled(r record) {
	if d, ok := r.(*dataRecord); ok && d.confirmed != nil {
		if d.unconfirmed--; d.unconfirmed == 0 {
			f.confirm(d.confirmed)
		}
	}
}

// confirm calls confirmed soon, after all earlier such calls. confirmed locks slot.mu, which comes
// before f.mu in the lock order. So a goroutine calls confirmed without f.mu. f.mu is locked.
func (f *feed) confirm(confirmed func()) {
	f.confirmations = append(f.confirmations, confirmed)
	if len(f.confirmations) == 1 {
		f.confirming.Go(f.runConfirmations)
	}
}

func (f *feed) runConfirmations() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.confirmations) > 0 {
		confirmed := f.confirmations[0]
		f.mu.Unlock()
		confirmed()
		f.mu.Lock()
		f.confirmations = f.confirmations[1:]
	}
}

func (r *dataRecord) newDelivery(f *feed) *transports.Delivery {
	d := Data{DataID: f.messageID(r.device, r.epoch, r.seq), Device: r.device, Host: f.hostName, Epoch: r.epoch, Seq: r.seq, Kind: r.kind, Partial: r.partial, LateFor: r.lateFor, Time: r.time}
	d.SetBytes(r.payload)
	return deliveryOf(d.DataID, TypeData, r.device, r.time, d.AppendJSON(make([]byte, 0, 256+len(d.Payload))))
}

func deliveryOf(id, kind, device string, at time.Time, payload []byte) *transports.Delivery {
	d := &transports.Delivery{UUID: id, Payload: payload, Metadata: newMetadata(id, kind, device)}
	d.Metadata[transports.Timestamp] = at.UTC().Format(time.RFC3339Nano)
	return d
}

// idSpace is the namespace of the ids. It keeps them apart from other name-based UUIDs.
var idSpace = uuid.MustParse("b64f2c05-92f4-4f0a-8f52-0a4d0a9bd0c1")

// messageID returns the id of an event or data. It is computed from the content, so every consumer
// and every redelivery has the same id.
func (f *feed) messageID(device string, epoch, seq uint64) string {
	name := make([]byte, 0, 128)
	name = strconv.AppendQuote(name, f.hostName)
	name = strconv.AppendUint(append(name, ' '), f.generation, 10)
	name = strconv.AppendQuote(append(name, ' '), device)
	name = strconv.AppendUint(append(name, ' '), epoch, 10)
	name = strconv.AppendUint(append(name, ' '), seq, 10)
	return uuid.NewSHA1(idSpace, name).String()
}

// publishPresence publishes that a session began or ended. It never blocks. The caller has locked
// slot.mu, so the events of a device are in order. detail is the event's Detail.
func (f *feed) publishPresence(s *Session, kind EventType, detail string) {
	f.publishEvent(&eventRecord{Event{
		Type: kind, Device: s.slot.device, Online: kind == Connected, Reason: s.reason, Detail: detail, RemoteAddr: s.remote, Host: f.hostName,
		Generation: f.generation, Epoch: s.epoch, Seq: s.seq, ConnectedAt: s.connectedAt, Time: f.now(),
	}})
}

// publishHost publishes an event of the host itself.
func (f *feed) publishHost(reason Reason) {
	f.mu.Lock()
	f.hostSeq++
	seq := f.hostSeq
	f.mu.Unlock()
	f.publishEvent(&eventRecord{Event{
		Type: HostEvent, Online: reason != HostStopped, Reason: reason, Host: f.hostName, Generation: f.generation, Seq: seq, Time: f.now(),
	}})
}

func (f *feed) publishEvent(r *eventRecord) {
	f.showTaps(EventsTopic, r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drained[EventsTopic] {
		return
	}
	for s := range f.subscribers {
		if b := s.backlogs[EventsTopic]; b != nil {
			coalesced, lost := b.addRecord(r)
			f.metrics.countEvents(coalesced, lost)
			if lost > 0 && !f.lossLogged {
				f.lossLogged = true
				f.log.Error("events were dropped because their consumer is too slow", "pipeline", s.pipeline, "waiting", b.n)
			}
		}
	}
}

// publishData publishes a frame of a session's device. If one consumer has no room for it, no
// consumer gets it. publishData then returns a channel that is closed when the caller should try
// again.
func (f *feed) publishData(s *Session, seq uint64, frame *received) (room <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	device := s.slot.device
	if frame.verdict.Unit != "" {
		device += unitSeparator + frame.verdict.Unit
	}
	consumers := 0
	if !f.drained[DataTopic] {
		for sub := range f.subscribers {
			if b := sub.backlogs[DataTopic]; b != nil {
				if room := b.checkRoom(device); room != nil {
					return room
				}
				consumers++
			}
		}
	}
	if consumers == 0 && frame.confirmed != nil {
		f.confirm(frame.confirmed)
	}
	if consumers == 0 && f.tapped.Load() == 0 {
		return nil
	}
	r := &dataRecord{
		device: device, epoch: s.epoch, seq: seq, payload: string(frame.payload), kind: frame.verdict.Kind, partial: frame.partial,
		lateFor: frame.late, time: f.now(), confirmed: frame.confirmed, unconfirmed: consumers,
	}
	f.showTaps(DataTopic, r)
	for sub := range f.subscribers {
		if b := sub.backlogs[DataTopic]; b != nil && !f.drained[DataTopic] {
			_, lost := b.addRecord(r)
			f.metrics.countDropped(lost)
		}
	}
	return nil
}

func (f *feed) showTaps(topic string, r record) {
	if f.tapped.Load() > 0 {
		f.taps.Show(topic, r.newDelivery(f).Message())
	}
}

// tapTopic returns copies of a topic's messages until ctx ends.
func (f *feed) tapTopic(ctx context.Context, topic string) <-chan *message.Message {
	f.tapped.Add(1)
	context.AfterFunc(ctx, func() { f.tapped.Add(-1) })
	return f.taps.Tap(ctx, topic)
}

// drainTopic marks the topic as drained: nothing more is published to it. Its subscriptions end
// when their backlogs are empty and their deliveries settled.
func (f *feed) drainTopic(topic string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drained[topic] = true
	for s := range f.subscribers {
		if b := s.backlogs[topic]; b != nil {
			b.drained = true
			b.changed.Broadcast()
		}
	}
}

func (f *feed) newBacklog(topic string) *backlog {
	o := &f.options
	limits := bounds{coalesce: o.EventsBacklog, total: o.EventsTotal, drop: true}
	if topic == DataTopic {
		limits = bounds{device: o.DataPerDevice, total: o.DataTotal, drop: o.DropOldest, bytes: o.Memory.Waiting}
	}
	b := newBacklog(limits, &f.mu)
	b.drained = f.drained[topic]
	return b
}

func (f *feed) windowOf(topic string) int {
	if topic == DataTopic {
		return f.options.DataWindow
	}
	return f.options.EventsWindow
}
