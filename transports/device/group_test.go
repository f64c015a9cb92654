package device

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseGroup(t *testing.T) {
	for body, want := range map[string]GroupCommand{
		`{"id":"i","devices":["a","b\u0063"],"cmd":"x"}`: {
			Command: Command{ID: "i", Payload: []byte("x"), Encoding: Text}, Selection: Selection{Devices: []string{"a", "bc"}},
		},
		`{"labels":{"site":"north","kind":""},"cmd":"00","encoding":"hex","group":"n","offline":"hold","devices":null,"device":null}`: {
			Command:   Command{ID: "m", Payload: []byte{0}, Encoding: Hex, Group: "n", Offline: Hold},
			Selection: Selection{Labels: map[string]string{"site": "north", "kind": ""}},
		},
		`{ "all" : true , "cmd":"x", "ttl": 5, "setpoint":"t" }`: {
			Command: Command{ID: "m", Payload: []byte("x"), Encoding: Text, TTL: 5 * time.Second, Supersede: "t"}, Selection: Selection{All: true},
		},
		`{"devices":["` + strings.Repeat(`a","`, 500_000) + `b"],"cmd":"x"}`: {
			Command:   Command{ID: "m", Payload: []byte("x"), Encoding: Text},
			Selection: Selection{Devices: append(strings.Split(strings.Repeat("a ", 500_000), " ")[:500_000], "b")},
		},
	} {
		got, err := Format{Supersede: "setpoint"}.ParseGroup([]byte(body), "m")
		if err != nil {
			t.Errorf("%.80s: %v", body, err)
		}
		if diff := cmp.Diff(want, got, long); diff != "" {
			t.Errorf("%.80s: %.500s", body, diff)
		}
	}
}

// long compares lists of half a million in no time.
var long = cmp.FilterValues(func(a, b []string) bool { return len(a) > 1000 && len(b) > 1000 }, cmp.Comparer(slices.Equal[[]string]))

func TestRejectedGroups(t *testing.T) {
	for body, want := range map[string]string{
		`{"cmd":"x"}`:                                                        "devices, labels or all: one of them must be given",
		`{"cmd":"x","device":"a"}`:                                           "device: a command for a group must have",
		`{"cmd":"x","address":"a","all":true}`:                               "device: a command for a group must have",
		`{"cmd":"x","devices":["a"],"all":true}`:                             "devices and all: only one of them",
		`{"cmd":"x","devices":["a"],"labels":{"a":"b"}}`:                     "devices and labels: only one of them",
		`{"cmd":"x","devices":[]}`:                                           "devices: is empty",
		`{"cmd":"x","devices":"a"}`:                                          "devices: must be a list",
		`{"cmd":"x","devices":["a",1]}`:                                      "devices[1]: must be a string",
		`{"cmd":"x","devices":["a",""]}`:                                     "devices[1]: is empty",
		"{\"cmd\":\"x\",\"devices\":[\"\xff\"]}":                             "devices[0]: is not UTF-8",
		`{"cmd":"x","devices":["a"],"devices":["b"]}`:                        "devices: given twice",
		`{"cmd":"x","labels":{}}`:                                            "labels: is empty",
		`{"cmd":"x","labels":["a"]}`:                                         "labels: must be an object",
		`{"cmd":"x","labels":{"a":1}}`:                                       `labels: "a": must be a string`,
		`{"cmd":"x","labels":{"a":"b","a":"c"}}`:                             `labels: "a": given twice`,
		`{"cmd":"x","all":false}`:                                            "all: must be true",
		`{"cmd":"x","all":"yes"}`:                                            "all: must be true",
		`{"all":true}`:                                                       "cmd: missing",
		`{"all":true,"cmd":"x","group":{"labels":{}}}`:                       "group: must be a string",
		`{"all":true,"cmd":"x","expire":"1s"}`:                               `"expire": unknown field`,
		`{"all":true,"cmd":"x","ttl":1,"expires_at":"2026-05-01T12:00:00Z"}`: "ttl and expires_at",
		`{"all":true,"cmd":"` + strings.Repeat("x", MaxGroupCommand) + `"}`:  "bytes long, allowed are 16777216",
	} {
		got, err := Format{}.ParseGroup([]byte(body), "m")
		if r, ok := errors.AsType[*Rejection](err); !ok || !strings.Contains(r.Detail, want) {
			t.Errorf("%.80s: %v, want %s", body, err, want)
		}
		if diff := cmp.Diff(GroupCommand{Command: Command{ID: "m", Device: got.Device}}, got); diff != "" {
			t.Errorf("%.80s: %s", body, diff)
		}
	}
	if _, err := (Format{}).ParseGroup([]byte("[]"), "m"); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

// A group's name is a command's own, and stays with one that is rejected.
func TestGroupOfACommand(t *testing.T) {
	c, err := ParseCommand([]byte(`{"id":"i","device":"d","cmd":"x","group":"north"}`), "")
	if err != nil || c.Group != "north" {
		t.Errorf("%+v, %v", c, err)
	}
	again, err := ParseCommand(c.AppendJSON(nil), "")
	if diff := cmp.Diff(c, again); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for body, want := range map[string]string{
		`{"group":"north","device":"d"}`:                      "north",
		`{"group":"north","group":"south","device":"d"}`:      "",
		`{"group":"north","devices":["d"],"cmd":"x"}`:         "north",
		`{"group":"","device":"d","cmd":"x","labels":null}`:   "",
		`{"group":"north","device":"d","cmd":"x","all":true}`: "north",
	} {
		c, err := ParseCommand([]byte(body), "m")
		if _, ok := errors.AsType[*Rejection](err); !ok || c.Group != want {
			t.Errorf("%s: %+v, %v", body, c, err)
		}
	}
	r, err := ParseResult(Result{ID: "i", Device: "d", Group: "north", State: StateSent}.AppendJSON(nil))
	if err != nil || r.Group != "north" {
		t.Errorf("%+v, %v", r, err)
	}
}

// Whatever a list holds, it comes out as it went in.
func TestDevicesComeOutAsTheyWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.StringMatching(`[!-~äß世]([ -~äß世]{0,18}[!-~äß世])?`), 1, 20).Draw(t, "names")
		body, err := json.Marshal(map[string]any{"devices": names, "cmd": "x"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Format{}.ParseGroup(body, "m")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(names, got.Devices); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestGroupReport(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 1, time.UTC)
	for want, r := range map[string]GroupReport{
		`{"id":"i","group":"g","state":"expanded","code":202,"devices":3,"host":"h","time":"2026-05-01T12:00:00.000000001Z"}`: {
			ID: "i", Group: "g", State: GroupExpanded, Devices: 3, Host: "h", Time: now,
		},
		`{"id":"i","state":"rejected","code":400,"detail":"why","host":"h","time":"2026-05-01T12:00:00.000000001Z"}`: {
			ID: "i", State: GroupRejected, Detail: "why", Host: "h", Time: now,
		},
		`{"id":"i","group":"g","state":"finished","code":200,"devices":3,"states":{"offline":1,"sent":2},"unfinished":0,"host":"h","time":"2026-05-01T12:00:00.000000001Z"}`: {
			ID: "i", Group: "g", State: GroupFinished, Devices: 3, States: map[State]int{StateSent: 2, StateOffline: 1}, Host: "h", Time: now,
		},
		`{"id":"i","group":"g","state":"unfinished","code":504,"devices":3,"unfinished":3,"host":"h","time":"2026-05-01T12:00:00.000000001Z"}`: {
			ID: "i", Group: "g", State: GroupUnfinished, Devices: 3, Unfinished: 3, Host: "h", Time: now,
		},
	} {
		if diff := cmp.Diff(want, string(r.JSON())); diff != "" {
			t.Error(diff)
		}
		again, err := ParseGroupReport(r.JSON())
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		if m := r.Message("x"); m.UUID != "x" || m.Metadata["type"] != TypeGroup || m.Metadata["message_id"] != "x" {
			t.Errorf("%+v", m.Metadata)
		}
	}
	for _, body := range []string{"", "[]", `{"id":"i"}`} {
		if _, err := ParseGroupReport([]byte(body)); err == nil {
			t.Errorf("%q is a report", body)
		}
	}
}

// FuzzParseGroup checks that a parsed command means what encoding/json reads in it, and that every
// error is of one of the two kinds.
func FuzzParseGroup(f *testing.F) {
	for _, body := range []string{
		`{"devices":["a","b"],"cmd":"x"}`, `{"labels":{"a":"b"},"cmd":"x"}`, `{"all":true,"cmd":"x","group":"g"}`, `{"devices":[ "a" , "\u0062" ] ,"cmd":"x"}`, `{"devices":[[],{}],"cmd":"x"}`, `{"devices":[`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := Format{}.ParseGroup(body, "m")
		if err != nil {
			if _, ok := errors.AsType[*Rejection](err); !ok && !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		var want struct {
			Devices []string
			Labels  map[string]string
			All     bool
		}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Selection(want), got.Selection); diff != "" {
			t.Fatal(diff)
		}
	})
}
