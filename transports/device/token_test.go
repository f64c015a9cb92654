package device

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

func TestTokenHashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.SliceOf(rapid.Byte()).Draw(t, "token")
		other := rapid.SliceOf(rapid.Byte()).Draw(t, "other")
		h := HashToken(token)
		read, err := ParseTokenHash(h.String())
		if err != nil || read != h {
			t.Fatalf("%s is read as %v: %v", h, read, err)
		}
		if !h.Matches(token) || h.Matches(other) != (string(other) == string(token)) {
			t.Fatalf("%s matches the wrong tokens", h)
		}
		if HashToken(token) == h {
			t.Fatal("two hashes of one token are equal")
		}
	})
}

func TestWrongTokenHashes(t *testing.T) {
	right := HashToken([]byte("token")).String()
	for _, text := range []string{
		"", "token", "sha256", "sha256::", "sha256:00:00", "md5" + right[6:], right + "00", right[:len(right)-2], right[:len(right)-1] + "x", right + ":", strings.Replace(right, ":", "", 1),
	} {
		if _, err := ParseTokenHash(text); !errors.Is(err, ErrTokenHash) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// login is a protocol whose frames all have a token behind the first byte. publish, if it isn't
// nil, returns the payload.
type login struct {
	protocol.Protocol
	publish func(frame []byte) []byte
}

func (l login) Decode(_ *protocol.State, frame []byte, v *protocol.Verdict) error {
	v.Token, v.Response = frame[1:3], frame
	if l.publish != nil {
		v.Payload = l.publish(frame)
	}
	return codec.ErrFrame // the frame is concealed even after an error
}

func TestTokensAreOverwritten(t *testing.T) {
	for name, c := range map[string]struct {
		publish func([]byte) []byte
		want    string
		hidden  bool
	}{
		"the frame":           {nil, "a**b**c", false},
		"a part of the frame": {func(f []byte) []byte { return f[1:] }, "**b**c", false},
		"a copy":              {func(f []byte) []byte { return []byte("copy " + string(f)) }, "copy a**b**c", false},
		"another form":        {func([]byte) []byte { return []byte("5859") }, "5859", true},
	} {
		frame := []byte("aXYbXYc")
		v, err := NewDialog(login{Protocol: protocol.Plain(nil), publish: c.publish}, netip.AddrPort{}, "").Decode(frame)
		published := v.Payload
		if published == nil {
			published = frame
		}
		if err == nil || string(v.Token) != "XY" || string(frame) != "a**b**c" || string(v.Response) != "aXYbXYc" {
			t.Errorf("%s: the token is %q, the frame %q, the response %q: %v", name, v.Token, frame, v.Response, err)
		}
		if string(published) != c.want || v.NoData != c.hidden || (v.Answers == protocol.No) != c.hidden {
			t.Errorf("%s: published %q, %+v", name, published, v)
		}
	}
}
