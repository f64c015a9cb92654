package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// bareLoop is a program that a developer would write by hand for the job of the whole path: it
// decodes the command, writes the frame, publishes the persistent result with a window of
// confirms, and acks what is confirmed, several at once. Its arguments are the broker's URL and
// the address to listen on; SIGTERM ends it.
func bareLoop() {
	url, addr := os.Args[1], os.Args[2]
	var devices sync.Map
	listener, err := net.Listen("tcp4", addr)
	check(err)
	go func() {
		for {
			conn, err := listener.Accept()
			check(err)
			devices.Store(conn.RemoteAddr().(*net.TCPAddr).IP.String(), conn)
		}
	}()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		os.Exit(0)
	}()
	conn, err := amqp.Dial(url)
	check(err)
	bareCarry(conn, &devices)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bareloop:", err)
		os.Exit(1)
	}
}

type bareCommand struct {
	ID     string `json:"id"`
	Device string `json:"device"`
	Cmd    string `json:"cmd"`
}

// bareResult has what the host's results have.
type bareResult struct {
	ID      string    `json:"id"`
	Device  string    `json:"device"`
	State   string    `json:"state"`
	Code    int       `json:"code"`
	Host    string    `json:"host"`
	Epoch   uint64    `json:"epoch"`
	Attempt int       `json:"attempt"`
	Time    time.Time `json:"time"`
}

type bareFlight struct {
	tag     uint64
	confirm *amqp.DeferredConfirmation
}

func bareCarry(conn *amqp.Connection, devices *sync.Map) {
	var in *amqp.Channel
	var deliveries <-chan amqp.Delivery
	for {
		var err error
		in, err = conn.Channel()
		check(err)
		check(in.Qos(benchWindow, 0, false))
		if deliveries, err = in.Consume("commands", "", false, false, false, false, nil); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	out, err := conn.Channel()
	check(err)
	check(out.Confirm(false))
	flights := make(chan bareFlight, benchWindow)
	go func() {
		for f := range flights {
			<-f.confirm.Done()
			if len(flights) == 0 || f.tag%64 == 0 {
				check(in.Ack(f.tag, true))
			}
		}
	}()
	epoch := uint64(time.Now().UnixMilli())
	for d := range deliveries {
		var c bareCommand
		check(json.Unmarshal(d.Body, &c))
		device, ok := devices.Load(c.Device)
		if !ok {
			check(fmt.Errorf("no device %s", c.Device))
		}
		_, err := device.(net.Conn).Write(append([]byte(c.Cmd), "\r\n"...))
		check(err)
		now := time.Now().UTC()
		body, err := json.Marshal(bareResult{ID: c.ID, Device: c.Device, State: "sent", Code: 202, Host: "bare", Epoch: epoch, Attempt: 1, Time: now})
		check(err)
		confirm, err := out.PublishWithDeferredConfirm("bench.results", "results", true, false, amqp.Publishing{
			MessageId: uuid.NewString(), Type: "result", ContentType: "application/json", DeliveryMode: amqp.Persistent, Timestamp: now,
			Headers: amqp.Table{"device": c.Device}, Body: body,
		})
		check(err)
		flights <- bareFlight{d.DeliveryTag, confirm}
	}
}
