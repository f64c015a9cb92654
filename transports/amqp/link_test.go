package amqp

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
)

// mute accepts connections and never says a word, as a broker does whose machine hangs.
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
	began := time.Now()
	r.close()
	if took := time.Since(began); took > closeTimeout {
		t.Errorf("closing took %s", took)
	}
}

// The library reports an orderly close as a nil *amqp.Error, whose Error method panics.
func TestAnOrderlyCloseIsAnErrorWithWords(t *testing.T) {
	peer := dial(t, testenv.Broker(t).VHost(t))
	channel := peer.ch.NotifyClose(make(chan *amqp.Error, 1))
	connection := peer.conn.NotifyClose(make(chan *amqp.Error, 1))
	if err := peer.conn.Close(); err != nil {
		t.Fatal(err)
	}
	for what, e := range map[string]*amqp.Error{"channel": <-channel, "connection": <-connection} {
		if err := plain(e); !errors.Is(err, errLost) || err.Error() == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}
