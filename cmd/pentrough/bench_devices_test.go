package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
	"github.com/pentrough/pentrough/transports/tcp"
)

// BenchmarkDeviceFrames reports the CPU time of a frame that a device sends, from the socket until
// its data message is settled. The device is in the same process, so its part is in all figures.
// gt06-go is the peer of gt06-rules: it has the same framing, and its Decode is written in Go.
func BenchmarkDeviceFrames(b *testing.B) {
	login, position := unhexed(b, "7878 0D 01 0123456789012345 0001 8CDD 0D0A"), unhexed(b, "7878 1F 12 0B081D112E10 CF 027AC7EB 0C465849 00 148F 01CC 00 287D 001FB8 0003 8081 0D0A")
	b.Run("line", func(b *testing.B) {
		benchmarkFrames(b, `identity = { by = "first-frame" }`, nil, "d1\r\n", strings.Repeat("x", 34)+"\r\n")
	})
	b.Run("gt06-rules", func(b *testing.B) { benchmarkFrames(b, `protocol = "gt06"`, nil, login, position) })
	b.Run("gt06-go", func(b *testing.B) {
		benchmarkFrames(b, `protocol = "gt06"`, func(c *tcp.Config) { c.Protocol = handwrittenConfig{c.Protocol} }, login, position)
	})
}

func unhexed(tb testing.TB, digits string) string {
	tb.Helper()
	text, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	must(tb, err)
	return string(text)
}

// benchmarkFrames sends b.N frames in writes of 32.
func benchmarkFrames(b *testing.B, settings string, change func(*tcp.Config), first, frame string) {
	const batch = 32
	text := fmt.Sprintf("[transport.devices]\ntype = \"tcp\"\nlisten = \"127.0.0.1:0\"\nmax_frame_rate = 0\ndata = { per_device = 10000, total = 20000 }\n%s\n", settings)
	file, _, err := configs.Parse("bench.toml", []byte(text), configs.Options{})
	must(b, err)
	config := file.Router.Transports[0].Config.(*tcp.Config)
	config.Listen = new(freeAddress(b))
	if change != nil {
		change(config)
	}
	t, err := config.New(transports.Env{Name: "devices", Host: "h", Logger: slog.New(slog.DiscardHandler), Now: time.Now, Registerer: prometheus.NewRegistry()})
	must(b, err)
	sub, err := t.Subscriber(transports.Consumer{Pipeline: "p"})
	must(b, err)
	var settled atomic.Int64
	done := make(chan struct{}, 1)
	_, err = sub.Subscribe(b.Context(), device.DataTopic, func(d *transports.Delivery) {
		d.Settle(&transports.Outcome{})
		if settled.Add(1) == int64(b.N) {
			done <- struct{}{}
		}
	})
	must(b, err)
	must(b, t.Start(b.Context()))
	defer func() { must(b, t.Close(context.Background())) }()
	conn, err := net.Dial("tcp", *config.Listen)
	must(b, err)
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	_, err = io.WriteString(conn, first)
	must(b, err)
	frames := []byte(strings.Repeat(frame, batch))
	b.ReportAllocs()
	b.ResetTimer()
	before := processCPU()
	for left := b.N; left > 0; left -= batch {
		_, err := conn.Write(frames[:min(left, batch)*len(frame)])
		must(b, err)
	}
	<-done
	b.ReportMetric(float64(processCPU()-before)/float64(b.N), "cpu-ns/frame")
}

// handwrittenConfig is the protocol GT06 with the framing of another protocol.
type handwrittenConfig struct{ framing protocol.Config }

func (c handwrittenConfig) Protocol() (protocol.Protocol, error) {
	p, err := c.framing.Protocol()
	return handwritten{p}, err
}

// handwritten decodes GT06 as a Go programmer would.
type handwritten struct{ protocol.Protocol }

func (handwritten) Decode(_ *protocol.State, frame []byte, v *protocol.Verdict) error {
	if len(frame) < 3 {
		return fmt.Errorf("%w: a frame of %d bytes", codec.ErrFrame, len(frame))
	}
	switch frame[0] {
	case 0x01:
		if len(frame) < 11 {
			return fmt.Errorf("%w: a login of %d bytes", codec.ErrFrame, len(frame))
		}
		v.Device, v.Kind = hex.EncodeToString(frame[1:9])[1:], "login"
		v.Response, v.NoData, v.Answers = append([]byte{frame[0]}, frame[len(frame)-2:]...), true, protocol.No
	case 0x13, 0x23:
		v.Kind = "heartbeat"
		v.Response, v.NoData, v.Answers = append([]byte{frame[0]}, frame[len(frame)-2:]...), true, protocol.No
	default:
		v.Kind = "12"
	}
	return nil
}
