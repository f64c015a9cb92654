package main

import (
	"encoding/json"
	"net"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// startBare runs the loop that somebody would write by hand for the same job: it decodes the command, writes the frame, publishes the
// persistent result with a window of confirms, and acks what is confirmed, several at once.
func startBare(b *testing.B, url string) (string, func()) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(b, err)
	var devices sync.Map
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			devices.Store(conn.RemoteAddr().(*net.TCPAddr).IP.String(), conn)
		}
	})
	conn, err := amqp.Dial(url)
	must(b, err)
	work.Go(func() { bareLoop(b, conn, &devices) })
	return listener.Addr().String(), func() {
		listener.Close()
		conn.Close()
		work.Wait()
		devices.Range(func(_, conn any) bool { return conn.(net.Conn).Close() == nil })
	}
}

type bareCommand struct {
	ID     string `json:"id"`
	Device string `json:"device"`
	Cmd    string `json:"cmd"`
}

type bareResult struct {
	ID     string    `json:"id"`
	Device string    `json:"device"`
	State  string    `json:"state"`
	Code   int       `json:"code"`
	Host   string    `json:"host"`
	Time   time.Time `json:"time"`
}

type bareFlight struct {
	tag     uint64
	confirm *amqp.DeferredConfirmation
}

func bareLoop(b *testing.B, conn *amqp.Connection, devices *sync.Map) {
	var in *amqp.Channel
	var deliveries <-chan amqp.Delivery
	for {
		var err error
		in, err = conn.Channel()
		if err != nil {
			return
		}
		must(b, in.Qos(benchWindow, 0, false))
		if deliveries, err = in.Consume("commands", "", false, false, false, false, nil); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	out, err := conn.Channel()
	must(b, err)
	must(b, out.Confirm(false))
	flights := make(chan bareFlight, benchWindow)
	var work sync.WaitGroup
	defer work.Wait()
	defer close(flights)
	work.Go(func() {
		for f := range flights {
			select {
			case <-f.confirm.Done():
			case <-time.After(benchDeadline):
				return
			}
			if len(flights) == 0 || f.tag%64 == 0 {
				if in.Ack(f.tag, true) != nil {
					return
				}
			}
		}
	})
	for d := range deliveries {
		var c bareCommand
		if err := json.Unmarshal(d.Body, &c); err != nil {
			b.Error(err)
			return
		}
		device, ok := devices.Load(c.Device)
		if !ok {
			b.Errorf("no device %s", c.Device)
			return
		}
		if _, err := device.(net.Conn).Write(append([]byte(c.Cmd), "\r\n"...)); err != nil {
			return
		}
		body, err := json.Marshal(bareResult{ID: c.ID, Device: c.Device, State: "sent", Code: 202, Host: "bare", Time: time.Now()})
		if err != nil {
			b.Error(err)
			return
		}
		confirm, err := out.PublishWithDeferredConfirm("bench.results", "results", true, false, amqp.Publishing{
			MessageId: c.ID, Type: "result", ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: body,
		})
		if err != nil {
			return
		}
		flights <- bareFlight{d.DeliveryTag, confirm}
	}
}
