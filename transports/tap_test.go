package transports

import (
	"bytes"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
)

func TestATapIsBoundedInMessagesAndBytes(t *testing.T) {
	var taps Taps
	tapped := taps.Tap(t.Context(), "x")
	taps.Show("y", message.NewMessage("", nil))
	for range tapBuffer + 5 {
		taps.Show("x", message.NewMessage("", nil))
	}
	if n := len(tapped); n != tapBuffer {
		t.Errorf("%d small messages wait, not %d", n, tapBuffer)
	}
	for len(tapped) > 0 {
		<-tapped
	}
	half := bytes.Repeat([]byte{1}, tapBytes/2)
	for range 5 {
		taps.Show("x", message.NewMessage("", half))
	}
	if n := len(tapped); n != 2 {
		t.Errorf("%d messages of half of the bytes wait, not 2", n)
	}
	<-tapped
	taps.Show("x", message.NewMessage("", half))
	if n := len(tapped); n != 2 {
		t.Errorf("%d messages wait after one was read, not 2", n)
	}
	<-tapped
	<-tapped
	taps.Show("x", message.NewMessage("", bytes.Repeat(half, 4)))
	taps.Show("x", message.NewMessage("", nil))
	if n := len(tapped); n != 1 {
		t.Errorf("%d messages wait, not only the one that is larger than all bytes", n)
	}
}
