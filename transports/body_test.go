package transports

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
)

func zip(t *testing.T, parts ...string) string {
	t.Helper()
	var out bytes.Buffer
	for _, part := range parts {
		w := gzip.NewWriter(&out)
		_, err := io.WriteString(w, part)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func TestBody(t *testing.T) {
	whole := zip(t, `{"a":1}`)
	for name, c := range map[string]struct{ encoding, payload, want, err string }{
		"no encoding":     {"", "\x1f\x8b as it is", "\x1f\x8b as it is", ""},
		"identity":        {"Identity", "text", "text", ""},
		"a charset":       {"utf-8", "text", "text", ""},
		"gzip":            {"gzip", whole, `{"a":1}`, ""},
		"another name":    {"X-GZIP", whole, `{"a":1}`, ""},
		"several members": {"gzip", zip(t, `{"a"`, `:1}`), `{"a":1}`, ""},
		"an empty member": {"gzip", zip(t, ""), "", ""},
		"nothing":         {"gzip", "", "", "opening the gzip payload: a gzip member is cut off"},
		"no gzip":         {"gzip", `{"a":1,"b":2}`, "", "opening the gzip payload: content_encoding is gzip, but the payload isn't"},
		"cut off":         {"gzip", whole[:len(whole)-3], "", "opening the gzip payload: a gzip member is cut off"},
		"damaged":         {"gzip", whole[:len(whole)-8] + "\x00\x00\x00\x00" + whole[len(whole)-4:], "", "opening the gzip payload: gzip: invalid checksum"},
		"trailing bytes":  {"gzip", whole + "and something more", "", "opening the gzip payload: gzip: invalid header"},
		"trailing zeros":  {"gzip", whole + "\x00\x00", "", "opening the gzip payload: a gzip member is cut off"},
		"Brotli":          {"br", "x", "", `content_encoding is "br": allowed are gzip and identity`},
		"two encodings":   {"gzip, gzip", zip(t, whole), "", `content_encoding is "gzip, gzip": allowed are gzip and identity`},
	} {
		msg := message.NewMessage("m", []byte(c.payload))
		if c.encoding != "" {
			msg.Metadata[ContentEncoding] = c.encoding
		}
		got, err := Body(msg)
		if text := errorText(err); string(got) != c.want || text != c.err {
			t.Errorf("%s: %q, %q", name, got, text)
		}
		if string(msg.Payload) != c.payload {
			t.Errorf("%s: the message changed", name)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestBodyIsBounded(t *testing.T) {
	for size, want := range map[int]error{MaxBody: nil, MaxBody + 1: ErrTooLarge, 4 * MaxBody: ErrTooLarge} {
		msg := message.NewMessage("m", []byte(zip(t, string(make([]byte, size)))))
		msg.Metadata[ContentEncoding] = "gzip"
		if body, err := Body(msg); !errors.Is(err, want) || err == nil && len(body) != size {
			t.Errorf("%d bytes: %d, %v", size, len(body), err)
		}
	}
}
