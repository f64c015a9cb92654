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

// FeedOptions bound what is kept for consumers that are behind.
type FeedOptions struct {
	// EventsWindow and DataWindow are how many messages a consumer may hold unsettled.
	EventsWindow, DataWindow int
	// EventsBacklog is how many events may wait for a consumer before only the newest of each device is kept.
	EventsBacklog int
	// EventsTotal is how many may wait at all; beyond it the oldest are lost.
	EventsTotal int
	// DataPerDevice and DataTotal are how much data may wait for a consumer.
	DataPerDevice, DataTotal int
	// DropOldest says that at a bound the oldest data makes room; otherwise the device isn't read until there is room.
	DropOldest bool
	// Memory has the budgets of what waits, which is data, and of what is in flight.
	Memory transports.Memory
	// Heartbeat is how often the host says that it is there.
	Heartbeat time.Duration
}

// The Types of messages that carry an Event or a Data.
const (
	TypeEvent = "event"
	TypeData  = "data"
)

// feed carries events and data to the consumers of their topics. Each consumer has every record; without consumers
// nothing is kept.
type feed struct {
	hostName   string
	generation uint64
	options    FeedOptions
	now        func() time.Time
	metrics    *metrics
	log        *slog.Logger

	taps   transports.Taps
	tapped atomic.Int32 // so that nothing is encoded for nobody

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	drained     map[string]bool
	hostSeq     uint64
	lossLogged  bool
}

func newFeed(host string, generation uint64, o FeedOptions, now func() time.Time, m *metrics, log *slog.Logger) *feed {
	return &feed{
		hostName: host, generation: generation, options: o, now: now, metrics: m, log: log,
		subscribers: map[*subscriber]struct{}{}, drained: map[string]bool{},
	}
}

// record is an event or data that waits for consumers. It is encoded when it is handed out.
type record interface {
	// of returns the device, or "" for the host.
	deviceName() string
	// size returns about how many bytes of memory it takes.
	size() int
	// delivery returns its content as a delivery.
	newDelivery(f *feed) *transports.Delivery
}

type eventRecord struct{ event Event }

func (r *eventRecord) deviceName() string { return r.event.Device }

// size is small, so that the number of events bounds their bytes.
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
	lateFor    string
	time       time.Time
}

func (r *dataRecord) deviceName() string { return r.device }

func (r *dataRecord) size() int { return len(r.payload) + len(r.lateFor) }

func (r *dataRecord) newDelivery(f *feed) *transports.Delivery {
	d := Data{DataID: f.messageID(r.device, r.epoch, r.seq), Device: r.device, Host: f.hostName, Epoch: r.epoch, Seq: r.seq, LateFor: r.lateFor, Time: r.time}
	d.SetBytes(r.payload)
	return deliveryOf(d.DataID, TypeData, r.device, r.time, d.AppendJSON(make([]byte, 0, 256+len(d.Payload))))
}

func deliveryOf(id, kind, device string, at time.Time, payload []byte) *transports.Delivery {
	d := &transports.Delivery{UUID: id, Payload: payload, Metadata: newMetadata(id, kind, device)}
	d.Metadata[transports.Timestamp] = at.UTC().Format(time.RFC3339Nano)
	return d
}

// idSpace keeps these ids apart from other name-based UUIDs.
var idSpace = uuid.MustParse("b64f2c05-92f4-4f0a-8f52-0a4d0a9bd0c1")

// id names an event or data. It follows from what it is, so that every consumer and every repetition has the same.
func (f *feed) messageID(device string, epoch, seq uint64) string {
	name := make([]byte, 0, 128)
	name = strconv.AppendQuote(name, f.hostName)
	name = strconv.AppendUint(append(name, ' '), f.generation, 10)
	name = strconv.AppendQuote(append(name, ' '), device)
	name = strconv.AppendUint(append(name, ' '), epoch, 10)
	name = strconv.AppendUint(append(name, ' '), seq, 10)
	return uuid.NewSHA1(idSpace, name).String()
}

// presence publishes that a session began or ended. It never blocks. The caller holds the slot's lock, so that events of one device
// are in order.
func (f *feed) publishPresence(s *Session, kind EventType) {
	f.publishEvent(&eventRecord{Event{
		Type: kind, Device: s.slot.device, Online: kind == Connected, Reason: s.reason, RemoteAddr: s.remote, Host: f.hostName,
		Generation: f.generation, Epoch: s.epoch, Seq: s.seq, ConnectedAt: s.connectedAt, Time: f.now(),
	}})
}

// host publishes what the host says of itself.
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
				f.log.Error("a consumer of events is so far behind that events are lost", "pipeline", s.pipeline, "waiting", b.n)
			}
		}
	}
}

// data publishes what a session's device sent. If a consumer has no room for it, nobody gets it, and the returned channel is
// closed when it is worth another try.
func (f *feed) publishData(s *Session, seq uint64, payload []byte, late string) (room <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var r *dataRecord
	if !f.drained[DataTopic] {
		for sub := range f.subscribers {
			if b := sub.backlogs[DataTopic]; b != nil {
				if room := b.checkRoom(s.slot.device); room != nil {
					return room
				}
				r = &dataRecord{}
			}
		}
	}
	if r == nil && f.tapped.Load() == 0 {
		return nil
	}
	r = &dataRecord{device: s.slot.device, epoch: s.epoch, seq: seq, payload: string(payload), lateFor: late, time: f.now()}
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

// tap shows a topic's messages to somebody who doesn't consume them.
func (f *feed) tapTopic(ctx context.Context, topic string) <-chan *message.Message {
	f.tapped.Add(1)
	context.AfterFunc(ctx, func() { f.tapped.Add(-1) })
	return f.taps.Tap(ctx, topic)
}

// drain says that nothing comes to topic any more.
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
