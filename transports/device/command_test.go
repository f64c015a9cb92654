package device

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/transports"
)

func TestParseCommand(t *testing.T) {
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, body, messageID string
		want                  Command
	}{
		{
			name: "the original format", body: `{"address": "10.0.0.7", "cmd": "open"}`,
			want: Command{Device: "10.0.0.7", Payload: []byte("open"), Encoding: Text},
		},
		{
			name: "everything", body: `{"id":"a-1","device":"d","address":"d","cmd":"6F70","encoding":"hex","ttl":"1m30s","reply":false,` +
				`"mode":"at-least-once","offline":"fail","supersede":false}`,
			want: Command{ID: "a-1", Device: "d", Payload: []byte("op"), Encoding: Hex, TTL: 90 * time.Second, Mode: AtLeastOnce, Reply: No, Offline: Fail},
		},
		{
			name: "expires_at", body: `{"device":"d","cmd":"x","expires_at":"2026-05-01T12:00:00Z"}`,
			want: Command{Device: "d", Payload: []byte("x"), Encoding: Text, ExpiresAt: noon},
		},
		{
			name: "base64", body: `{"device":"d","cmd":"AP8=","encoding":"base64"}`,
			want: Command{Device: "d", Payload: []byte{0, 0xff}, Encoding: Base64},
		},
		{
			name: "ttl in seconds", body: `{"device":"d","cmd":"x","ttl":0.5}`,
			want: Command{Device: "d", Payload: []byte("x"), Encoding: Text, TTL: 500 * time.Millisecond},
		},
		{
			name: "ttl and expires_at, one null", body: `{"device":"d","cmd":"x","ttl":1e1,"expires_at":null,"group":null}`,
			want: Command{Device: "d", Payload: []byte("x"), Encoding: Text, TTL: 10 * time.Second},
		},
		{
			name: "the message's id", body: `{"device":"d","cmd":"x"}`, messageID: "m",
			want: Command{ID: "m", Device: "d", Payload: []byte("x"), Encoding: Text},
		},
		{
			name: "its own id before the message's", body: `{"device":"d","cmd":"x","id":"i"}`, messageID: "m",
			want: Command{ID: "i", Device: "d", Payload: []byte("x"), Encoding: Text},
		},
		{
			name: "a question", body: `{"device":"d","cmd":"x","reply":true,"timeout":"1.5s"}`,
			want: Command{Device: "d", Payload: []byte("x"), Encoding: Text, Reply: Yes, Timeout: 1500 * time.Millisecond},
		},
		{
			name: "priority", body: `{"device":"d","cmd":"x","priority":9}`,
			want: Command{Device: "d", Payload: []byte("x"), Encoding: Text, Priority: 9},
		},
		{
			name: "a timeout in seconds", body: `{"device":"d","cmd":"x","timeout":3,"supersede":"false"}`,
			want: Command{Device: "d", Payload: []byte("x"), Encoding: Text, Timeout: 3 * time.Second, Supersede: "false"},
		},
		{
			name: "supersede", body: `{"device":"d","cmd":"x","supersede":"temperature"}`,
			want: Command{Device: "d", Payload: []byte("x"), Encoding: Text, Supersede: "temperature"},
		},
		{
			name: "escapes", body: ` { "d\u0065vice" : "\u00fc\ud83d\ude00\/" , "cmd" : "a\"\\\b\f\n\r\t\u0000z" } `,
			want: Command{Device: "ü😀/", Payload: []byte("a\"\\\b\f\n\r\t\x00z"), Encoding: Text},
		},
		{
			name: "an empty command", body: `{"device":"d","cmd":""}`,
			want: Command{Device: "d", Payload: []byte{}, Encoding: Text},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseCommand([]byte(c.body), c.messageID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFieldThatSaysWhatACommandSets(t *testing.T) {
	f := Format{Supersede: "setpoint"}
	for _, c := range []struct{ body, want, detail string }{
		{body: `{"device":"d","cmd":"x","setpoint":"temperature"}`, want: "temperature"},
		{body: `{"device":"d","cmd":"x","setpoint":"temperature","supersede":"all"}`, want: "all"},
		{body: `{"device":"d","cmd":"x","supersede":false,"setpoint":"temperature"}`, want: ""},
		{body: `{"device":"d","cmd":"x","supersede":null,"setpoint":"temperature"}`, want: "temperature"},
		{body: `{"device":"d","cmd":"x","setpoint":null}`, want: ""},
		{body: `{"device":"d","cmd":"x"}`, want: ""},
		{body: `{"device":"d","cmd":"x","setpoint":7}`, detail: "setpoint: must be a string"},
		{body: `{"device":"d","cmd":"x","setpoint":"a","setpoint":"b"}`, detail: "setpoint: given twice"},
		{body: `{"device":"d","cmd":"x","set":"a"}`, detail: `"set": unknown field`},
	} {
		got, err := f.Parse([]byte(c.body), "")
		r, rejected := errors.AsType[*Rejection](err)
		if rejected != (c.detail != "") || rejected && r.Detail != c.detail || got.Supersede != c.want {
			t.Errorf("%s: %+v, %v", c.body, got, err)
		}
		if again, err := ParseCommand(got.AppendJSON(nil), ""); !rejected && (err != nil || again.Supersede != c.want) {
			t.Errorf("%s: as JSON %s: %v", c.body, got.AppendJSON(nil), err)
		}
	}
	if err := (Format{Supersede: "cmd"}).Validate(); err == nil {
		t.Error("a field of every command can't be the one")
	}
}

func TestRejectedCommands(t *testing.T) {
	for _, c := range []struct {
		name, body, messageID string
		detail                string // a part of it
		id, device            string
	}{
		{name: "nothing in it", body: `{}`, detail: "device: missing"},
		{name: "no cmd", body: `{"id":"i","device":"d"}`, detail: "cmd: missing", id: "i", device: "d"},
		{name: "null cmd", body: `{"device":"d","cmd":null}`, detail: "cmd: missing", device: "d"},
		{name: "number as cmd", body: `{"device":"d","cmd":1}`, detail: "cmd: must be a string", device: "d"},
		{name: "object as cmd", body: `{"device":"d","cmd":{"a":[1]},"id":"i"}`, detail: "cmd: must be a string", device: "d", id: "i"},
		{name: "no device", body: `{"cmd":"x"}`, messageID: "m", detail: "device: missing", id: "m"},
		{name: "number as device", body: `{"cmd":"x","device":7}`, detail: "device: must be a string"},
		{name: "empty device", body: `{"cmd":"x","device":""}`, detail: "device: is empty"},
		{name: "two devices", body: `{"cmd":"x","device":"a","address":"b"}`, detail: `device "a" and address "b" differ`},
		{name: "newline in the device", body: `{"cmd":"x","device":"a\nb"}`, detail: "device: has a control character"},
		{name: "number as id", body: `{"cmd":"x","device":"d","id":5}`, messageID: "m", detail: "id: must be a string", id: "m", device: "d"},
		{name: "empty id", body: `{"cmd":"x","device":"d","id":""}`, detail: "id: is empty", device: "d"},
		{name: "long id", body: `{"cmd":"x","device":"d","id":"` + strings.Repeat("i", 256) + `"}`, detail: "id: is 256 bytes long, allowed are 255", device: "d"},
		{name: "device in form D", body: `{"cmd":"x","device":"u\u0308"}`, detail: `device: is not in the Unicode normal form C (NFC), in which it is "\u00fc"`},
		{name: "space behind the id", body: `{"cmd":"x","device":"d","id":"a "}`, detail: "id: begins or ends with a space", device: "d"},
		{name: "direction in the address", body: `{"cmd":"x","address":"a\u202e"}`, detail: "address: has U+202E, which can't be printed"},
		{name: "selector in the group", body: `{"cmd":"x","device":"d","group":"a\ufe0f"}`, detail: "group: has U+FE0F, which can't be printed", device: "d"},
		{name: "NUL in the id", body: `{"cmd":"x","device":"d","id":"a\u0000"}`, detail: "id: has a control character", device: "d"},
		{name: "unprintable id", body: `{"cmd":"x","device":"d","id":"a\u202e"}`, detail: "id: has U+202E", device: "d"},
		{name: "bad message id", body: `{"cmd":"x","device":"d"}`, messageID: "a\xff", detail: "message_id: is not UTF-8", device: "d"},
		{name: "cmd twice", body: `{"cmd":"x","device":"d","cmd":"x","id":"i"}`, detail: "cmd: given twice", id: "i", device: "d"},
		{name: "cmd twice, once with an escape", body: `{"cmd":"x","device":"d","\u0063md":"y"}`, detail: "cmd: given twice", device: "d"},
		{name: "id twice", body: `{"cmd":"x","device":"d","id":"i","id":"j"}`, messageID: "m", detail: "id: given twice", id: "m", device: "d"},
		{name: "device twice", body: `{"cmd":"x","device":"d","device":"e","id":"i"}`, detail: "device: given twice", id: "i"},
		{name: "bytes in cmd that aren't UTF-8", body: "{\"cmd\":\"\xff\",\"device\":\"d\",\"id\":\"i\"}", detail: "cmd: is not UTF-8", id: "i", device: "d"},
		{name: "bytes in a name that aren't UTF-8", body: "{\"cmd\":\"x\",\"\xff\":1,\"device\":\"d\",\"id\":\"i\"}", detail: "the name of a field is not UTF-8", id: "i", device: "d"},
		{name: "bytes in id that aren't UTF-8", body: "{\"cmd\":\"x\",\"device\":\"d\",\"id\":\"\xff\"}", detail: "id: is not UTF-8", device: "d"},
		{name: "half a surrogate pair", body: `{"cmd":"\ud83d","device":"d"}`, detail: "cmd: has half of a surrogate pair", device: "d"},
		{name: "two halves that don't fit", body: `{"cmd":"\ud83d\u0041","device":"d"}`, detail: "cmd: has half of a surrogate pair", device: "d"},
		{name: "unknown field", body: `{"cmd":"x","device":"d","expires":"2026-05-01T12:00:00Z"}`, detail: `"expires": unknown field`, device: "d"},
		{name: "field in capitals", body: `{"Cmd":"x","device":"d"}`, detail: `"Cmd": unknown field`, device: "d"},
		{name: "unknown encoding", body: `{"cmd":"x","device":"d","encoding":"latin1"}`, detail: `encoding: "latin1", allowed are text, hex and base64`, device: "d"},
		{name: "empty encoding", body: `{"cmd":"x","device":"d","encoding":""}`, detail: `encoding: ""`, device: "d"},
		{name: "number as encoding", body: `{"cmd":"x","device":"d","encoding":8}`, detail: `encoding: must be a string`, device: "d"},
		{name: "half a byte", body: `{"cmd":"abc","device":"d","encoding":"hex"}`, detail: "cmd: is not hex", device: "d"},
		{name: "no hex", body: `{"cmd":"zz","device":"d","encoding":"hex"}`, detail: "cmd: is not hex", device: "d"},
		{name: "base64 without padding", body: `{"cmd":"AP8","device":"d","encoding":"base64"}`, detail: "cmd: is not base64", device: "d"},
		{name: "base64 with bits left over", body: `{"cmd":"AP9=","device":"d","encoding":"base64"}`, detail: "cmd: is not base64", device: "d"},
		{name: "no time", body: `{"cmd":"x","device":"d","expires_at":"tomorrow"}`, detail: `expires_at: "tomorrow" is not a time`, device: "d"},
		{name: "number as time", body: `{"cmd":"x","device":"d","expires_at":1777636800}`, detail: "expires_at: must be a string", device: "d"},
		{name: "no duration", body: `{"cmd":"x","device":"d","ttl":"soon"}`, detail: `ttl: "soon" is neither`, device: "d"},
		{name: "bool as ttl", body: `{"cmd":"x","device":"d","ttl":true}`, detail: "is neither a duration", device: "d"},
		{name: "zero ttl", body: `{"cmd":"x","device":"d","ttl":0}`, detail: "is not above 0", device: "d"},
		{name: "negative ttl", body: `{"cmd":"x","device":"d","ttl":"-1s"}`, detail: "is not above 0", device: "d"},
		{name: "endless ttl", body: `{"cmd":"x","device":"d","ttl":1e300}`, detail: "at most 100 years", device: "d"},
		{name: "ttl and expires_at", body: `{"cmd":"x","device":"d","ttl":1,"expires_at":"2026-05-01T12:00:00Z"}`, detail: "only one of them", device: "d"},
		{name: "reply as a string", body: `{"cmd":"x","device":"d","reply":"false"}`, detail: "reply: must be true or false", device: "d"},
		{name: "long timeout", body: `{"cmd":"x","device":"d","reply":true,"timeout":301}`, detail: "timeout: \"301\" is not above 0 and at most 5m0s", device: "d"},
		{name: "no timeout", body: `{"cmd":"x","device":"d","timeout":{}}`, detail: "timeout: ", device: "d"},
		{name: "supersede as a string", body: `{"cmd":"x","device":"d","supersede":""}`, detail: "supersede: is empty", device: "d"},
		{name: "mode", body: `{"cmd":"x","device":"d","mode":"exactly-once"}`, detail: `mode: "exactly-once", allowed are at-least-once and at-most-once`, device: "d"},
		{name: "offline", body: `{"cmd":"x","device":"d","offline":"keep"}`, detail: `offline: "keep", allowed are fail and hold`, device: "d"},
		{name: "supersede", body: `{"cmd":"x","device":"d","supersede":true}`, detail: "supersede: ", device: "d"},
		{name: "priority above 9", body: `{"cmd":"x","device":"d","priority":10}`, detail: `priority: "10" is not a number from 0 to 9`, device: "d"},
		{name: "priority below 0", body: `{"cmd":"x","device":"d","priority":-1}`, detail: "priority: ", device: "d"},
		{name: "priority as a string", body: `{"cmd":"x","device":"d","priority":"9"}`, detail: "priority: ", device: "d"},
		{name: "group", body: `{"cmd":"x","device":"d","group":{"a":[]}}`, detail: "group: must be a string", device: "d"},
		{
			name: "oversize", body: `{"device":"d","cmd":"` + strings.Repeat("x", MaxCommand) + `","id":"i"}`,
			detail: "bytes long, allowed are 1048576", id: "i", device: "d",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseCommand([]byte(c.body), c.messageID)
			var r *Rejection
			if !errors.As(err, &r) {
				t.Fatalf("error %v, want a rejection", err)
			}
			if !strings.Contains(r.Detail, c.detail) {
				t.Errorf("detail %q, want %q in it", r.Detail, c.detail)
			}
			if len(r.Detail) > 300 {
				t.Errorf("a detail of %d bytes", len(r.Detail))
			}
			if diff := cmp.Diff(Command{ID: c.id, Device: c.device}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMalformedCommands(t *testing.T) {
	good := `{"id":"i","device":"d","cmd":"x"}`
	for name, body := range map[string]string{
		"empty":                 "",
		"white space":           " \n",
		"not JSON":              "open",
		"an array":              "[" + good + "]",
		"a string":              `"open"`,
		"null":                  "null",
		"cut off":               good[:len(good)-1],
		"cut in an escape":      `{"cmd":"\u00`,
		"two objects":           good + good,
		"something after it":    good + " x",
		"a byte order mark":     "\ufeff" + good,
		"a comma too many":      `{"id":"i",}`,
		"no comma":              `{"id":"i" "cmd":"x"}`,
		"single quotes":         `{'id':'i'}`,
		"no colon":              `{"id"}`,
		"a bare name":           `{id:"i"}`,
		"a raw newline":         "{\"cmd\":\"a\nb\"}",
		"a raw NUL":             "{\"cmd\":\"a\x00b\"}",
		"an unknown escape":     `{"cmd":"\x41"}`,
		"a leading zero":        `{"ttl":01}`,
		"a bare minus":          `{"ttl":-}`,
		"no digit after a dot":  `{"ttl":1.}`,
		"no digit after e":      `{"ttl":1e}`,
		"NaN":                   `{"ttl":NaN}`,
		"half a word":           `{"reply":tru}`,
		"an open array":         `{"group":[1,`,
		"a wrong bracket":       `{"group":[1}}`,
		"deep nesting":          `{"group":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`,
		"one level too deep":    `{"group":` + strings.Repeat("[", jsontext.MaxDepth) + strings.Repeat("]", jsontext.MaxDepth) + `}`,
		"deep nesting, no ends": strings.Repeat(`{"a":`, 1_000_000),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCommand([]byte(body), "m")
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v, want one of kind %q", err, ErrMalformed)
			}
			if len(err.Error()) > 200 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if !reflect.DeepEqual(got, Command{}) {
				t.Errorf("got %+v with it", got)
			}
		})
	}
	deepest := `{"group":` + strings.Repeat("[", jsontext.MaxDepth-1) + strings.Repeat("]", jsontext.MaxDepth-1) + `}`
	if _, err := ParseCommand([]byte(deepest), ""); errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestCommandMessage(t *testing.T) {
	c := Command{ID: "i", Device: "d", Payload: []byte{0}, Encoding: Hex, TTL: time.Second}
	msg := c.Message()
	want := map[string]string{
		transports.MessageID: "i", transports.Type: "command", transports.ContentType: "application/json", transports.Device: "d",
	}
	if diff := cmp.Diff(want, map[string]string(msg.Metadata)); diff != "" {
		t.Error(diff)
	}
	if got, want := string(msg.Payload), `{"id":"i","device":"d","cmd":"00","encoding":"hex","ttl":"1s"}`; got != want || msg.UUID != "i" {
		t.Errorf("%s %s, want %s", msg.UUID, got, want)
	}
}

// peer is the command as encoding/json reads it.
type peer struct {
	ID        string    `json:"id"`
	Device    string    `json:"device"`
	Address   string    `json:"address"`
	Cmd       string    `json:"cmd"`
	Encoding  string    `json:"encoding"`
	ExpiresAt time.Time `json:"expires_at"`
}

func FuzzCommand(f *testing.F) {
	for _, seed := range []string{
		`{"address":"10.0.0.7","cmd":"open"}`, `{"id":"i","device":"d","cmd":"6f","encoding":"hex","ttl":"1m"}`,
		`{"device":"d","cmd":"\ud83d\ude00\u0000","expires_at":"2026-05-01T12:00:00.5+02:00"}`,
		`{"device":"d","cmd":"x","ttl":1.5e0,"reply":false,"group":[{"a":[null,true,-0.1E+2]}]}`, `{"cmd":"x","cmd":"y"}`, "[1]", "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := string(body)
		c, err := ParseCommand(body, "m")
		if string(body) != before {
			t.Fatal("the body changed")
		}
		var object map[string]json.RawMessage
		theirs := json.Unmarshal(body, &object)
		if theirs == nil && object == nil { // "null"
			theirs = ErrMalformed
		}
		if errors.Is(err, ErrMalformed) {
			if theirs == nil && !strings.Contains(err.Error(), "nested too deep") {
				t.Fatalf("%v, but encoding/json reads it", err)
			}
			return
		}
		if theirs != nil {
			t.Fatalf("read what encoding/json does not: %v", theirs)
		}
		if err != nil {
			return
		}
		var p peer
		if err := json.Unmarshal(body, &p); err != nil {
			t.Fatalf("accepted, but encoding/json says: %v", err)
		}
		if p.Device == "" {
			p.Device = p.Address
		}
		if p.ID == "" {
			p.ID = "m"
		}
		if p.ID != c.ID || p.Device != c.Device || !p.ExpiresAt.Equal(c.ExpiresAt) {
			t.Fatalf("read %+v, encoding/json %+v", c, p)
		}
		if c.Encoding == Text && p.Cmd != string(c.Payload) {
			t.Fatalf("read %q, encoding/json %q", c.Payload, p.Cmd)
		}
		out := c.AppendJSON(nil)
		if !json.Valid(out) {
			t.Fatalf("wrote %s", out)
		}
		again, err := ParseCommand(out, "")
		if err != nil {
			t.Fatalf("wrote %s, which is refused: %v", out, err)
		}
		if !again.ExpiresAt.Equal(c.ExpiresAt) {
			t.Fatalf("wrote %s: expires %v, was %v", out, again.ExpiresAt, c.ExpiresAt)
		}
		again.ExpiresAt = c.ExpiresAt
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("wrote %s: %s", out, diff)
		}
	})
}
