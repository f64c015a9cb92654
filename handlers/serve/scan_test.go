package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/jsontext"
)

// FuzzParse compares the scanner with encoding/json: both accept the same lines and find the same
// message in them.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`{"type":"request","id":1,"remaining_ms":5,"message":{"id":"m","payload":"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","metadata":{"k":"v","":""}}}`,
		`{"type":"ping","id":1,"x":[1,-0.5e+7,true,null,{"a":[[]]},{}]}`, `{"message":1,"type":"x","id":"y"}`, `{"type":"request","id":1,"remaining_ms":2,"message":{"payload_b64":"/w=="},"id":3}`,
		`{"\u0074ype":"drain"} `, `{"type":"drain",}`, `{"type":"drain"}}`, `{"type":"ping","id":01}`, `{"type":"ping","id":1,"a":"` + "\x1f" + `"}`, `{"type":"ping","id":1,"a":tru}`, `{"a":"\ud83d"}`, `{"type":"ping","id":1,"a":[1 2]}`,
		strings.Repeat(`{"a":`, 1200),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseLine(text)
		var want map[string]json.RawMessage
		right := json.Unmarshal(text, &want) == nil && want != nil && utf8.Valid(text)
		var kind string
		right = right && want["type"] != nil && json.Unmarshal(want["type"], &kind) == nil && string(want["type"]) != "null"
		if err == nil && !right {
			t.Fatalf("%q is taken", text)
		}
		if err != nil || l.kind != "request" {
			// A request can be invalid in more ways than its JSON. Other lines are invalid only
			// because of half a surrogate pair, the depth, the id or the hello.
			if right && err != nil && strings.Contains(err.Error(), "a JSON object") && !errors.Is(err, jsontext.ErrSurrogate) && !strings.Contains(err.Error(), "too deep") && kind != "request" {
				t.Fatalf("%q isn't taken: %v", text, err)
			}
			return
		}
		var m struct {
			ID       string            `json:"id"`
			Payload  string            `json:"payload"`
			Base64   []byte            `json:"payload_b64"`
			Metadata map[string]string `json:"metadata"`
		}
		if bytes.Contains(bytes.ToLower(text), []byte("\\u")) || json.Unmarshal(want["message"], &m) != nil {
			// encoding/json ignores the case of keys, and reports numbers in place of strings
			// later.
			return
		}
		for _, key := range []string{"id", "payload", "payload_b64", "metadata"} {
			if n := bytes.Count(bytes.ToLower(text), []byte(`"`+key+`"`)); n > 2 || n > 1 && key != "id" {
				// encoding/json handles repeated keys, and keys in another case, in its own way.
				return
			}
		}
		if data := string(l.msg.Payload); l.msg.UUID != m.ID || data != m.Payload && data != string(m.Base64) || !maps.Equal(l.msg.Metadata, m.Metadata) && len(l.msg.Metadata)+len(m.Metadata) > 0 {
			t.Errorf("%q: %q %q %v, want %+v", text, l.msg.UUID, l.msg.Payload, l.msg.Metadata, m)
		}
	})
}

// FuzzResponse parses the responses that are written.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("open \"\\ \n\r\t\x00\x1f\u2028é😀"), "key", "v\xff")
	f.Add([]byte("\xff\xfe"), "", "")
	f.Fuzz(func(t *testing.T, payload []byte, key, text string) {
		m := message.NewMessage(key, payload)
		m.Metadata = message.Metadata{key: text}
		line := appendResponse(nil, 7, []*message.Message{m, m}, nil)
		var got struct {
			Type     string `json:"type"`
			ID       int64  `json:"id"`
			Messages []struct {
				Payload  *string           `json:"payload"`
				Base64   []byte            `json:"payload_b64"`
				Metadata map[string]string `json:"metadata"`
			} `json:"messages"`
		}
		if err := json.Unmarshal(line, &got); err != nil || bytes.Count(line, []byte("\n")) != 1 || got.ID != 7 || len(got.Messages) != 2 {
			t.Fatalf("%q: %v", line, err)
		}
		back := got.Messages[1].Base64
		if p := got.Messages[1].Payload; p != nil {
			back = []byte(*p)
		}
		if !bytes.Equal(back, payload) {
			t.Errorf("%q became %q", payload, back)
		}
		if want := strings.ToValidUTF8(text, "\ufffd"); got.Messages[0].Metadata[strings.ToValidUTF8(key, "\ufffd")] != want {
			t.Errorf("metadata %q became %q", text, got.Messages[0].Metadata)
		}
		line = appendResponse(nil, 7, nil, handlers.Permanent(errors.New(text)))
		var failed struct {
			Error struct{ Kind, Text string } `json:"error"`
		}
		if err := json.Unmarshal(line, &failed); err != nil || failed.Error.Kind != "permanent" || failed.Error.Text != strings.ToValidUTF8(text, "\ufffd") {
			t.Errorf("%q: %v", line, err)
		}
	})
}
