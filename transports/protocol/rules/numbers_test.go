package rules

import (
	"testing"

	"github.com/pentrough/pentrough/transports/protocol"
)

func TestNumbers(t *testing.T) {
	p := build(t, gt06())
	s := &protocol.State{Number: 0xffff, Awaits: func(string) bool { return false }}
	for _, want := range []string{"0", "1"} {
		if _, key, err := p.Encode(s, nil, protocol.Command{}); err != nil || key != want {
			t.Errorf("the key is %s, %v; want %s", key, err, want)
		}
	}
	c := gt06()
	c.Rules = []Rule{with(Rule{When: `u8(0) == 1`, Respond: `w16(n)`}), with(Rule{})}
	c.Asks = ""
	p = build(t, c)
	for _, want := range []string{"\x00\x02", "", "\x00\x03"} {
		var v protocol.Verdict
		b := byte(len(want) / 2)
		if err := p.Decode(s, []byte{b}, &v); err != nil || string(v.Response) != want {
			t.Errorf("%q, %v; want %q", v.Response, err, want)
		}
	}
}
