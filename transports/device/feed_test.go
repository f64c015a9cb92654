package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/protocol"
	"github.com/pentrough/pentrough/transports/transporttest"
)

func TestEventJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	for _, tt := range []struct {
		event Event
		want  string
	}{
		{
			Event{EventID: "e", Type: Disconnected, Device: "10.0.0.7", Reason: IdleTimeout, RemoteAddr: "10.0.0.7:1234", Host: "gw", Generation: 7, Epoch: 8, Seq: 9, ConnectedAt: at, Time: at},
			`{"event_id":"e","type":"disconnected","device":"10.0.0.7","online":false,"reason":"idle_timeout","remote_addr":"10.0.0.7:1234","host":"gw","generation":7,"epoch":8,"seq":9,"connected_at":"2026-01-02T02:04:05.000000006Z","time":"2026-01-02T02:04:05.000000006Z"}`,
		},
		{
			Event{EventID: "e", Type: Disconnected, Device: "d", Reason: Kicked, Detail: `banned: "stolen"`, Host: "gw", Generation: 7, Epoch: 8, Seq: 9, Time: at},
			`{"event_id":"e","type":"disconnected","device":"d","online":false,"reason":"kicked","detail":"banned: \"stolen\"","host":"gw","generation":7,"epoch":8,"seq":9,"time":"2026-01-02T02:04:05.000000006Z"}`,
		},
		{
			Event{EventID: "e", Type: HostEvent, Online: true, Reason: HostHeartbeat, Host: "gw", Generation: 7, Seq: 2, Time: at},
			`{"event_id":"e","type":"host","online":true,"reason":"heartbeat","host":"gw","generation":7,"seq":2,"time":"2026-01-02T02:04:05.000000006Z"}`,
		},
	} {
		got := tt.event.AppendJSON(nil)
		if string(got) != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		var back Event
		if err := json.Unmarshal(got, &back); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.event, back); diff != "" {
			t.Errorf("decoded again: %s", diff)
		}
	}
}

func TestDataJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, tt := range []struct{ frame, want string }{
		{`say "hé"` + "\x01", `"encoding":"text","payload":"say \"hé\"\u0001"`},
		{"\xff\x00", `"encoding":"base64","payload":"/wA="`},
	} {
		d := Data{DataID: "i", Device: "d", Host: "gw", Epoch: 8, Seq: 9, Time: at}
		d.SetBytes(tt.frame)
		got := d.AppendJSON(nil)
		want := `{"data_id":"i","device":"d","host":"gw","epoch":8,"seq":9,` + tt.want + `,"time":"2026-01-02T03:04:05.000000006Z"}`
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		var back Data
		if err := json.Unmarshal(got, &back); err != nil {
			t.Error(err)
		}
		if b, err := back.Bytes(); string(b) != tt.frame || err != nil {
			t.Errorf("decoded again: %q, %v", b, err)
		}
	}
	for _, d := range []Data{{Encoding: "hex"}, {Encoding: Base64, Payload: "?"}} {
		if _, err := d.Bytes(); err == nil {
			t.Errorf("decoded %+v", d)
		}
	}
}

func subscribe(t *testing.T, s transports.Subscriber, ctx context.Context, topic string) <-chan *message.Message {
	t.Helper()
	c, err := transporttest.Stock(s).Subscribe(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// text returns the data that a message carries.
func text(t *testing.T, msg *message.Message) string {
	t.Helper()
	var d Data
	if err := json.Unmarshal(msg.Payload, &d); err != nil {
		t.Fatal(err)
	}
	return d.Payload
}

func sendData(t *testing.T, s *Session, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		if err := s.Data([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMessages(t *testing.T) {
	r := testRegistry(t, nil)
	events := subscribe(t, r.Subscriber("e"), t.Context(), EventsTopic)
	data := subscribe(t, r.Subscriber("d"), t.Context(), DataTopic)
	again := subscribe(t, r.Subscriber("again"), t.Context(), DataTopic)
	s := connect(t, r, "10.0.0.7", newPipe(0))
	sendData(t, s, "hello")
	for topic, c := range map[string]<-chan *message.Message{TypeEvent: events, TypeData: data} {
		msg := <-c
		var body struct {
			EventID string `json:"event_id"`
			DataID  string `json:"data_id"`
			Time    string `json:"time"`
		}
		if err := json.Unmarshal(msg.Payload, &body); err != nil {
			t.Fatal(err)
		}
		want := message.Metadata{
			transports.Device: "10.0.0.7", transports.Type: topic, transports.ContentType: "application/json",
			transports.MessageID: body.EventID + body.DataID, transports.Timestamp: body.Time,
		}
		if diff := cmp.Diff(want, msg.Metadata); diff != "" {
			t.Errorf("metadata: %s", diff)
		}
		if msg.UUID != msg.Metadata[transports.MessageID] || msg.UUID == "" {
			t.Errorf("the message is %q", msg.UUID)
		}
		msg.Ack()
		if topic == TypeData {
			other := <-again
			if other.UUID != msg.UUID {
				t.Errorf("two consumers got %q and %q", msg.UUID, other.UUID)
			}
			other.Ack()
		}
	}
}

func TestConsumerThatKeepsUpSeesEachEvent(t *testing.T) {
	r := testRegistry(t, nil)
	events := subscribe(t, r.Subscriber("e"), t.Context(), EventsTopic)
	for i := range 20 {
		connect(t, r, strconv.Itoa(i%2), newPipe(0)).End(ClientClosed)
		for _, want := range []EventType{Connected, Disconnected} {
			msg := <-events
			var e Event
			if err := json.Unmarshal(msg.Payload, &e); err != nil || e.Type != want {
				t.Fatalf("got %s, %v; want %s", msg.Payload, err, want)
			}
			msg.Ack()
		}
	}
}

func TestConsumerThatIsBehindSeesTheNewestStates(t *testing.T) {
	r := testRegistry(t, func(o *Options) { o.Feed.EventsBacklog = 4 })
	sub := r.feed.newSubscriber("e")
	for i := range 10 {
		for _, d := range []string{"a", "b", "c"} {
			s := connect(t, r, d, newPipe(0))
			if i < 9 || d != "b" {
				s.End(ClientClosed)
			}
		}
	}
	got := short(sub.events())
	if want := []string{"a disconnected client_closed", "b connected", "c disconnected client_closed"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestEventsTotal(t *testing.T) {
	r := testRegistry(t, func(o *Options) { o.Feed.EventsBacklog, o.Feed.EventsTotal = 2, 5 })
	sub := r.feed.newSubscriber("e")
	for i := range 9 {
		connect(t, r, strconv.Itoa(i), newPipe(0))
	}
	if got := short(sub.events()); len(got) != 5 || got[4] != "8 connected" {
		t.Fatalf("got %q, want the newest 5", got)
	}
}

func TestDataBlocksAtItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil) // 4 a device, 8 in all, a window of 10
		sub := r.Subscriber("p")
		sessions := map[string]*Session{}
		for _, d := range []string{"a", "b", "c"} {
			sessions[d] = connect(t, r, d, newPipe(0))
		}
		done := make(chan string, 20)
		send := func(d string, n int) {
			for i := range n {
				sendData(t, sessions[d], fmt.Sprint(d, i))
				done <- d
			}
		}
		go send("a", 6)
		synctest.Wait()
		go send("b", 4)
		synctest.Wait()
		go send("c", 1)
		synctest.Wait()
		if n := len(done); n != 8 {
			t.Fatalf("%d were taken, want 4 of a and 4 of b", n)
		}
		data := subscribe(t, sub, t.Context(), DataTopic)
		var got []string
		for range 11 {
			msg := <-data
			got = append(got, text(t, msg))
			msg.Ack()
		}
		for _, d := range []string{"a", "b", "c"} {
			var own []string
			for _, p := range got {
				if strings.HasPrefix(p, d) {
					own = append(own, p)
				}
			}
			if !slices.IsSorted(own) {
				t.Errorf("out of order: %q", got)
			}
		}
		synctest.Wait()
		if n := len(done); n != 11 {
			t.Fatalf("%d were taken in the end", n)
		}
	})
}

// Data that waits takes the budget at most. A consumer has one record in any case.
func TestDataIsBoundedInBytes(t *testing.T) {
	for _, drop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			waiting := transports.NewBudget(25)
			r := testRegistry(t, func(o *Options) { o.Feed.Memory.Waiting, o.Feed.DropOldest = waiting, drop })
			sub := r.Subscriber("p")
			s := connect(t, r, "a", newPipe(0))
			sent := make(chan int, 20)
			go func() {
				for i := range 4 {
					sendData(t, s, fmt.Sprintf("%010d", i))
					sent <- i
				}
			}()
			synctest.Wait()
			if n := len(sent); n != map[bool]int{false: 3, true: 4}[drop] || waiting.Used() != 30 {
				t.Fatalf("dropping %v: %d were taken, %d bytes wait", drop, n, waiting.Used())
			}
			data := subscribe(t, sub, t.Context(), DataTopic)
			for i := range 4 {
				if drop && i == 0 {
					continue
				}
				msg := <-data
				if got := text(t, msg); got != fmt.Sprintf("%010d", i) {
					t.Errorf("dropping %v: %s came as number %d", drop, got, i)
				}
				msg.Ack()
			}
			synctest.Wait()
			if used := waiting.Used(); used != 0 {
				t.Errorf("dropping %v: %d bytes are left taken", drop, used)
			}
		})
	}
}

// The consumer and the device wait for room that others use up. They go on when the others give it
// back, although nothing else happens.
func TestRoomThatOthersGiveBackIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := transports.Memory{Waiting: transports.NewBudget(25), InFlight: transports.NewBudget(10)}
		memory.Waiting.Add(25)
		memory.InFlight.Add(10)
		r := testRegistry(t, func(o *Options) { o.Feed.Memory = memory })
		data := subscribe(t, r.Subscriber("p"), t.Context(), DataTopic)
		s := connect(t, r, "a", newPipe(0))
		sendData(t, s, "1")
		synctest.Wait() // it is delivered, and stays unsettled
		sendData(t, s, "2")
		third := make(chan struct{})
		go func() {
			sendData(t, s, "3")
			close(third)
		}()
		time.Sleep(time.Minute)
		select {
		case <-third:
			t.Error("a record was taken beyond the budget")
		default:
		}
		memory.Waiting.Give(25)
		<-third
		if got := text(t, <-data); got != "1" {
			t.Errorf("%s came first", got)
		}
		select {
		case <-data:
			t.Error("a record was delivered beyond the budget")
		case <-time.After(time.Minute):
		}
		memory.InFlight.Give(10)
		for _, want := range []string{"2", "3"} {
			if got := text(t, <-data); got != want {
				t.Errorf("%s came, not %s", got, want)
			}
		}
	})
}

func TestBlockedDataEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		r.Subscriber("p")
		s := connect(t, r, "d", newPipe(0))
		sendData(t, s, "1", "2", "3", "4")
		failed := make(chan error)
		go func() { failed <- s.Data([]byte("5")) }()
		synctest.Wait()
		s.End(IdleTimeout)
		if err := <-failed; !errors.Is(err, ErrEnded) {
			t.Fatal(err)
		}
	})
}

func TestBlockedDataGoesOnWithoutTheConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		sub := r.Subscriber("p")
		s := connect(t, r, "d", newPipe(0))
		sendData(t, s, "1", "2", "3", "4")
		done := make(chan error)
		go func() { done <- s.Data([]byte("5")) }()
		synctest.Wait()
		if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestDropOldest(t *testing.T) {
	r := testRegistry(t, func(o *Options) { o.Feed.DropOldest = true })
	sub := r.Subscriber("p")
	a, b, c := connect(t, r, "a", newPipe(0)), connect(t, r, "b", newPipe(0)), connect(t, r, "c", newPipe(0))
	sendData(t, a, "a1", "a2", "a3", "a4", "a5")
	sendData(t, b, "b1", "b2", "b3", "b4")
	sendData(t, c, "c1")
	data := subscribe(t, sub, t.Context(), DataTopic)
	for _, want := range []string{"a3", "a4", "a5", "b1", "b2", "b3", "b4", "c1"} {
		msg := <-data
		if got := text(t, msg); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		msg.Ack()
	}
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, func(o *Options) { o.Feed.DataWindow = 2 })
		data := subscribe(t, r.Subscriber("p"), t.Context(), DataTopic)
		sendData(t, connect(t, r, "d", newPipe(0)), "1", "2", "3")
		first, second := <-data, <-data
		synctest.Wait()
		select {
		case msg := <-data:
			t.Fatalf("got %q beyond the window", text(t, msg))
		default:
		}
		second.Ack()
		third := <-data
		if text(t, third) != "3" {
			t.Fatalf("got %q", text(t, third))
		}
		first.Ack()
		third.Ack()
	})
}

func TestNackedIsHandedOutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, func(o *Options) { o.Feed.DataWindow = 2 })
		sub := r.Subscriber("p")
		data := subscribe(t, sub, t.Context(), DataTopic)
		sendData(t, connect(t, r, "d", newPipe(0)), "1", "2", "3", "4")
		one, two := <-data, <-data // the window is full
		one.Nack()
		synctest.Wait()
		two.Ack()
		var got []string
		for range 3 {
			msg := <-data
			got = append(got, text(t, msg)+msg.Metadata[transports.Redelivered])
			msg.Ack()
		}
		if want := []string{"1true", "3", "4"}; !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

// TestSettle settles deliveries while others are delivered, more than once, and after they are
// void.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, func(o *Options) { o.Feed.DataWindow = 2 })
		sub := r.Subscriber("p")
		var got []string
		var all []*transports.Delivery
		done, err := sub.Subscribe(t.Context(), DataTopic, func(d *transports.Delivery) {
			payload := text(t, d.Message())
			got, all = append(got, payload+d.Metadata[transports.Redelivered]), append(all, d)
			switch {
			case d.Metadata[transports.Redelivered] == "":
				d.Settle(nil)
			case payload == "1":
				d.Settle(&transports.Outcome{})
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		s := connect(t, r, "d", newPipe(0))
		for _, payload := range []string{"1", "2", "3", "4"} {
			sendData(t, s, payload)
			synctest.Wait()
		}
		// 2 and 3 fill the window, whatever is said of deliveries that are settled.
		for _, d := range all[:3] {
			d.Settle(&transports.Outcome{})
			d.Settle(nil)
		}
		synctest.Wait()
		if want := []string{"1", "1true", "2", "2true", "3", "3true"}; !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		settled := make(chan struct{})
		go func() {
			defer close(settled)
			all[5].Settle(nil) // at the same time
		}()
		if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
		<-settled
		<-done
		n := len(got) // delivery 3 may have been redelivered before the end
		all[3].Settle(nil)
		synctest.Wait()
		if len(got) != n {
			t.Fatalf("got %q after Close", got[n:])
		}
	})
}

func TestCancelledSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		sub := r.Subscriber("p")
		ctx, cancel := context.WithCancel(t.Context())
		data := subscribe(t, sub, ctx, DataTopic)
		s := connect(t, r, "d", newPipe(0))
		sendData(t, s, "1", "2", "3")
		one, two := <-data, <-data
		cancel()
		synctest.Wait()
		if one.Context().Err() != nil {
			t.Error("the subscription's end reached its messages")
		}
		two.Nack()
		synctest.Wait()
		select {
		case msg, ok := <-data:
			t.Fatalf("got %v, %v while a message is unsettled", msg, ok)
		default:
		}
		one.Ack()
		if msg, ok := <-data; ok {
			t.Fatalf("got %q after the end", text(t, msg))
		}
		data = subscribe(t, sub, t.Context(), DataTopic)
		for _, want := range []string{"2", "3"} {
			msg := <-data
			if got := text(t, msg); got != want {
				t.Fatalf("subscribed again and got %q, want %q", got, want)
			}
			msg.Ack()
		}
	})
}

func TestSubscriberClose(t *testing.T) {
	r := testRegistry(t, nil)
	sub := r.Subscriber("p")
	data := subscribe(t, sub, t.Context(), DataTopic)
	sendData(t, connect(t, r, "d", newPipe(0)), "1", "2")
	msg := <-data
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(context.Cause(msg.Context()), transports.ErrVoid) {
		t.Errorf("the unsettled message's context: %v", context.Cause(msg.Context()))
	}
	if _, ok := <-data; ok {
		t.Error("got a message after Close")
	}
	if _, err := transporttest.Stock(sub).Subscribe(t.Context(), DataTopic); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("Subscribe after Close: %v", err)
	}
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		data := subscribe(t, r.Subscriber("p"), t.Context(), DataTopic)
		s := connect(t, r, "d", newPipe(0))
		sendData(t, s, "1", "2")
		r.Drain(DataTopic)
		sendData(t, s, "3")
		one, two := <-data, <-data
		one.Ack()
		synctest.Wait()
		two.Ack()
		if msg, ok := <-data; ok {
			t.Fatalf("got %q, want the end", text(t, msg))
		}
		if _, ok := <-subscribe(t, r.Subscriber("late"), t.Context(), DataTopic); ok {
			t.Fatal("a later subscription got something")
		}
	})
}

// A subscriber that subscribes to events doesn't need the data that came before. So the response
// to such data waits only for the other consumers.
func TestConsumersOfEventsDelayNoResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := numberedRegistry(t, &numbered{})
		data, events := r.Subscriber("data"), r.Subscriber("events")
		p := newPipe(1000)
		s := connectNumbered(t, r, "d", p)
		if err := s.Receive([]byte("x"), &protocol.Verdict{Response: []byte("safe"), Confirmed: true}); err != nil {
			t.Fatal(err)
		}
		subscribe(t, events, t.Context(), EventsTopic)
		synctest.Wait()
		if got := p.bytes(); got != "" {
			t.Errorf("the device got %q before a consumer has the data", got)
		}
		(<-subscribe(t, data, t.Context(), DataTopic)).Ack()
		synctest.Wait()
		if got, want := p.bytes(), "safe\n"; got != want {
			t.Errorf("the device got %q, want %q", got, want)
		}
	})
}

func TestTap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		tap := r.Tap(ctx, DataTopic)
		sendData(t, connect(t, r, "d", newPipe(0)), "1")
		if got := text(t, <-tap); got != "1" {
			t.Fatalf("got %q", got)
		}
		cancel()
		if _, ok := <-tap; ok {
			t.Fatal("the tap goes on")
		}
	})
}

func TestUnknownTopic(t *testing.T) {
	r := testRegistry(t, nil)
	if _, err := transporttest.Stock(r.Subscriber("p")).Subscribe(t.Context(), "date"); err == nil || !strings.Contains(err.Error(), "events and data") {
		t.Fatalf("got %v", err)
	}
}
