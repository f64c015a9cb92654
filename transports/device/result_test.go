package device

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports"
)

var exampleResult = Result{
	ID: "0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11", Device: "127.3.4.5", State: StateSent, Host: "gateway-1", Epoch: 1777636800123,
	Attempt: 1, Time: time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC),
}

func TestResultJSON(t *testing.T) {
	for _, c := range []struct {
		name string
		r    Result
		want string
	}{
		{
			"sent", exampleResult,
			`{"id":"0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11","device":"127.3.4.5","state":"sent","code":202,"host":"gateway-1",` +
				`"epoch":1777636800123,"attempt":1,"time":"2026-05-01T12:00:00.123456789Z"}`,
		},
		{
			"rejected", Result{ID: "i", State: StateRejected, Detail: "cmd: \"\n\" \x01\xff\u2028", Host: "h", Attempt: 1, Time: exampleResult.Time},
			`{"id":"i","device":"","state":"rejected","code":400,"detail":"cmd: \"\n\" \u0001` + "\ufffd\u2028" + `","host":"h",` +
				`"attempt":1,"time":"2026-05-01T12:00:00.123456789Z"}`,
		},
		{
			"answered", Result{State: StateAnswered, Reply: []byte{0xff}, Encoding: Base64, Time: exampleResult.Time},
			`{"id":"","device":"","state":"answered","code":200,"reply":"/w==","encoding":"base64","host":"","attempt":0,"time":"2026-05-01T12:00:00.123456789Z"}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(c.r.AppendJSON(nil)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestCodes(t *testing.T) {
	want := map[State]int{
		StateHeld: 102, StateAnswered: 200, StateSent: 202, StateRejected: 400, StateUnknownDevice: 404, StateSuperseded: 409, StateExpired: 410,
		StateBusy: 429, StateOffline: 503, StateNoReply: 504, StateUnknown: 520,
	}
	for s, code := range want {
		if s.Code() != code {
			t.Errorf("%s has code %d, want %d", s, s.Code(), code)
		}
		if s.Terminal() == (s == StateHeld) {
			t.Errorf("%s: Terminal() = %v", s, s.Terminal())
		}
	}
}

func TestResultsComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Result{
			ID: rapid.String().Draw(t, "id"), Device: rapid.String().Draw(t, "device"), State: StateSent, Detail: rapid.String().Draw(t, "detail"),
			Host: rapid.String().Draw(t, "host"), Epoch: rapid.Uint64().Draw(t, "epoch"), Attempt: rapid.Int().Draw(t, "attempt"),
			Time: time.Unix(rapid.Int64Range(0, math.MaxInt32).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
		}
		switch r.Encoding = rapid.SampledFrom([]Encoding{"", Text, Hex, Base64}).Draw(t, "encoding"); r.Encoding {
		case "":
		case Text:
			r.Reply = []byte(rapid.String().Draw(t, "reply"))
		default:
			r.Reply = rapid.SliceOf(rapid.Byte()).Draw(t, "reply")
		}
		got, err := ParseResult(r.AppendJSON(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestBadResults(t *testing.T) {
	for _, body := range []string{"", "{", "{}", `{"state":1}`, `{"state":"answered","reply":"zz","encoding":"hex"}`, `{"state":"answered","reply":"zz"}`} {
		if r, err := ParseResult([]byte(body)); err == nil {
			t.Errorf("%s read as %+v", body, r)
		}
	}
}

func TestResultMessage(t *testing.T) {
	msg := exampleResult.Message()
	if err := uuid.Validate(msg.UUID); err != nil {
		t.Error(err)
	}
	want := map[string]string{
		transports.MessageID: msg.UUID, transports.Type: "result", transports.ContentType: "application/json", transports.Device: "127.3.4.5",
	}
	if diff := cmp.Diff(want, map[string]string(msg.Metadata)); diff != "" {
		t.Error(diff)
	}
	if got, want := string(msg.Payload), string(exampleResult.AppendJSON(nil)); got != want {
		t.Errorf("payload %s, want %s", got, want)
	}
	if again := exampleResult.Message(); again.UUID == msg.UUID {
		t.Error("two messages of one id")
	}
}

func BenchmarkResult(b *testing.B) {
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 512)
		for b.Loop() {
			buf = exampleResult.AppendJSON(buf[:0])
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		peer := struct {
			ID, Device, State string
			Code              int
			Host              string
			Epoch             uint64
			Attempt           int
			Time              time.Time
		}{exampleResult.ID, exampleResult.Device, "sent", 202, exampleResult.Host, exampleResult.Epoch, 1, exampleResult.Time}
		for b.Loop() {
			if _, err := json.Marshal(peer); err != nil {
				b.Fatal(err)
			}
		}
	})
}
