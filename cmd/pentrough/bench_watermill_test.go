package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// startWatermill starts the Watermill loop.
func startWatermill(b *testing.B, url string) *carrier {
	addr := freeAddress(b)
	return startCarrier(b, &carrier{b: b, cmd: exec.Command("watermillloop", url, addr), addr: addr})
}

// watermillLoop does the bare loop's job with Watermill's Router alone between the host's own
// ends: the amqp transport, and a handler that writes to sockets. It keeps no order. Its arguments
// are those of the bare loop.
func watermillLoop() {
	url, addr := os.Args[1], os.Args[2]
	end, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	kind, _ := plugin.Registered().Kind("transport")
	info, _ := kind.Lookup("amqp")
	config := info.New().(transports.Config)
	decoder := plugin.Decoder{Set: plugin.Registered()}
	decoder.Table("", map[string]any{
		"url": url, "prefetch": int64(benchWindow), "confirm_window": int64(benchWindow),
		"topic": map[string]any{
			"commands": map[string]any{"exchange": "bench.commands", "queue": "commands"},
			"results":  map[string]any{"exchange": "bench.results", "queue": "results"},
		},
	}, config)
	transport, err := config.New(transports.Env{
		Name: "broker", Host: "watermill", Logger: slog.New(slog.DiscardHandler), Now: time.Now, Registerer: prometheus.NewRegistry(),
	})
	check(err)
	subscriber, err := transport.Subscriber(transports.Consumer{Pipeline: "loop"})
	check(err)
	publisher, err := transport.Publisher(transports.Producer{Pipeline: "loop", Topic: "results"})
	check(err)
	check(transport.Start(end))

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
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	check(err)
	epoch := uint64(time.Now().UnixMilli())
	router.AddHandler("loop", "commands", transporttest.Stock(subscriber), "results", publisher,
		func(msg *message.Message) ([]*message.Message, error) {
			var c bareCommand
			if err := json.Unmarshal(msg.Payload, &c); err != nil {
				return nil, err
			}
			device, ok := devices.Load(c.Device)
			if !ok {
				return nil, fmt.Errorf("no device %s", c.Device)
			}
			if _, err := device.(net.Conn).Write(append([]byte(c.Cmd), "\r\n"...)); err != nil {
				return nil, err
			}
			body, err := json.Marshal(bareResult{
				ID: c.ID, Device: c.Device, State: "sent", Code: 202, Host: "watermill", Epoch: epoch, Attempt: 1, Time: time.Now().UTC(),
			})
			out := message.NewMessage(uuid.NewString(), body)
			out.Metadata[transports.Type], out.Metadata[transports.ContentType], out.Metadata["device"] = "result", "application/json", c.Device
			return []*message.Message{out}, err
		})
	go func() {
		<-end.Done()
		os.Exit(0)
	}()
	check(router.Run(end))
}
