package listen

import (
	"errors"
	"net"
	"testing"
)

func TestDialedConnectionsHavePlaces(t *testing.T) {
	c := newCrowd(Limits{Max: 3})
	dial := func() (*Conn, error) {
		return c.Dial(func() (net.Conn, error) {
			if c.State().Kept == 0 {
				t.Error("the place isn't taken before the dial")
			}
			return &socket{from: "10.0.0.9:502"}, nil
		})
	}
	first, err := dial()
	if err != nil || !first.Keep() {
		t.Fatal(err)
	}
	stranger := c.connect("10.0.0.1:1")
	c.connect("10.0.0.2:1").Keep()
	if _, err := dial(); err != nil || !stranger.Displaced() || c.open() != "1" {
		t.Errorf("open are %s, %v", c.open(), err)
	}
	if _, err := dial(); !errors.Is(err, errFull) || c.Err() == nil {
		t.Errorf("a fourth of 3: %v; the gate says %v", err, c.Err())
	}
	if err := first.Close(); err != nil || c.Err() != nil {
		t.Errorf("%v, %v", err, c.Err())
	}
	refused := errors.New("connection refused")
	for range 5 {
		if _, err := c.Dial(func() (net.Conn, error) { return nil, refused }); !errors.Is(err, refused) {
			t.Errorf("got %v", err)
		}
	}
	if got := c.State(); got.Kept != 2 {
		t.Errorf("%+v", got)
	}
	c.close()
	if _, err := dial(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
