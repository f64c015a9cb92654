package amqp

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
)

// mute accepts connections and never sends anything, like a broker on a machine that hangs.
func mute(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return "amqp://guest:guest@" + l.Addr().String() + "/"
}

func TestALoginThatIsNotAnsweredEndsInTime(t *testing.T) {
	r := start(t, config(mute(t), func(c *Config) { c.ConnectTimeout = 300 * time.Millisecond }))
	r.subscribe(t.Context(), "t")
	r.sick("consumer connection", "logging in to 127.0.0.1")
	r.sick("publisher connection", "logging in to 127.0.0.1")
}

func TestCloseEndsALoginThatIsNotAnswered(t *testing.T) {
	r := start(t, config(mute(t), func(c *Config) { c.ConnectTimeout = time.Hour }))
	r.subscribe(t.Context(), "t")
	r.closeAtOnce()
}

// The pauses between attempts never exceed max_interval during an outage.
func TestThePausesBetweenAttemptsGrowToTheLongest(t *testing.T) {
	r := prepare(t, config("amqp://127.0.0.1:1/"))
	synctest.Test(t, func(t *testing.T) {
		const attempts = 20
		backoff := r.tr.config.Reconnect
		l := newLink(consumerRole, r.tr.consumer.dialer, r.tr.consumer.connectivity, r.tr.metrics)
		ctx, cancel := context.WithCancel(t.Context())
		_, _, changed, _ := l.currentState() // before the first attempt changes it
		var running sync.WaitGroup
		running.Go(func() { l.run(ctx) })
		<-changed
		for n, pause := 0, backoff.InitialInterval; n < attempts; n, pause = n+1, min(pause*3/2, backoff.MaxInterval) {
			began := time.Now()
			_, _, changed, err := l.currentState()
			if err == nil || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("attempt %d: %v", n, err)
			}
			<-changed
			if took := time.Since(began); took < pause/2 || took > pause {
				t.Errorf("pause %d took %s, want %s to %s", n, took, pause/2, pause)
			}
		}
		cancel()
		running.Wait()
	})
}

// The library reports an orderly close as a nil *amqp.Error, whose Error method panics.
func TestAnOrderlyCloseIsAnErrorWithWords(t *testing.T) {
	t.Parallel()
	peer := dial(t, testenv.Broker(t).VHost(t))
	channel := peer.ch.NotifyClose(make(chan *amqp.Error, 1))
	connection := peer.conn.NotifyClose(make(chan *amqp.Error, 1))
	if err := peer.conn.Close(); err != nil {
		t.Fatal(err)
	}
	for what, e := range map[string]*amqp.Error{"channel": <-channel, "connection": <-connection} {
		if err := plainError(e); !errors.Is(err, errLost) || err.Error() == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}
