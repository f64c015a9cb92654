package tally

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

func TestMain(m *testing.M) { await.Main(m) }

const summaries = handlers.TopicRef("broker:summaries")

func config(change func(*Config)) *Config {
	c := defaults
	c.To = summaries
	if change != nil {
		change(&c)
	}
	return &c
}

func result(id, group, name string, state device.State) *message.Message {
	return device.Result{ID: id, Group: group, Device: name, State: state, Host: "h", Time: handlertest.Start}.Message()
}

func expanded(id, group string, devices int) *message.Message {
	return device.GroupReport{ID: id, Group: group, State: device.GroupExpanded, Devices: devices, Host: "h", Time: handlertest.Start}.Message("x")
}

// summary returns the summary that was produced, or nil.
func summary(t testing.TB, out []*message.Message, err error) *device.GroupReport {
	t.Helper()
	if err != nil || len(out) > 1 {
		t.Fatalf("%v, %v", out, err)
	}
	if len(out) == 0 {
		return nil
	}
	if ref := handlers.Destination(out[0]); ref != summaries {
		t.Errorf("it goes to %q", ref)
	}
	return parsed(t, out[0])
}

func parsed(t testing.TB, msg *message.Message) *device.GroupReport {
	t.Helper()
	r, err := device.ParseGroupReport(msg.Payload)
	if err != nil || msg.Metadata[transports.Type] != device.TypeGroup {
		t.Fatal(err, msg.Metadata)
	}
	return &r
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(config(nil)) },
		result("1", "g", "a", device.StateSent), expanded("1", "g", 5), result("2", "", "a", device.StateSent))
}

func TestSummary(t *testing.T) {
	host := handlertest.NewHost(t)
	h := host.Build(config(nil))
	defer h.(io.Closer).Close()
	other := device.GroupReport{ID: "1", Group: "g", State: device.GroupRejected, Time: handlertest.Start}.Message("x")
	for i, msg := range []*message.Message{
		result("1", "g", "a", device.StateSent), result("1", "g", "a", device.StateOffline), result("1", "g", "b", device.StateHeld),
		result("1", "", "c", device.StateSent), result("1", "other", "c", device.StateSent), result("2", "g", "c", device.StateSent),
		expanded("1", "g", 3), other, result("1", "g", "b", device.StateExpired),
	} {
		out, err := handlertest.Handle(t.Context(), h, msg)
		if s := summary(t, out, err); s != nil {
			t.Fatalf("a summary after %d: %+v", i, s)
		}
	}
	last := result("1", "g", "c", device.StateSent)
	out, err := handlertest.Handle(t.Context(), h, last)
	if diff := cmp.Diff(&device.GroupReport{
		ID: "1", Group: "g", State: device.GroupFinished, Devices: 3, States: map[device.State]int{device.StateSent: 2, device.StateExpired: 1},
		Host: "testhost", Time: handlertest.Start,
	}, summary(t, out, err)); diff != "" {
		t.Error(diff)
	}
	// The result is redelivered if the summary wasn't confirmed.
	again, err := handlertest.Handle(t.Context(), h, last.Copy())
	if summary(t, again, err) == nil || again[0].UUID != out[0].UUID {
		t.Errorf("%v, %v", again, err)
	}
	again, err = handlertest.Handle(t.Context(), h, result("1", "g", "a", device.StateSent))
	if s := summary(t, again, err); s != nil {
		t.Errorf("%+v", s)
	}
}

// fanout's message may come last.
func TestExpandedLast(t *testing.T) {
	h := handlertest.NewHost(t).Build(config(nil))
	defer h.(io.Closer).Close()
	if out, err := handlertest.Handle(t.Context(), h, result("1", "g", "a", device.StateSent)); err != nil || out != nil {
		t.Fatal(out, err)
	}
	for range 2 {
		out, err := handlertest.Handle(t.Context(), h, expanded("1", "g", 1))
		if s := summary(t, out, err); s == nil || s.Devices != 1 || s.State != device.GroupFinished {
			t.Errorf("%+v", s)
		}
	}
}

func TestTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		msgs []*message.Message
		// after is the time from the group to the start of the count.
		after time.Duration
		want  device.GroupReport
	}{
		"some are missing": {
			msgs: []*message.Message{expanded("1", "g", 3), result("1", "g", "a", device.StateSent)},
			want: device.GroupReport{Devices: 3, Unfinished: 2, States: map[device.State]int{device.StateSent: 1}, Detail: "not all have ended within 1m0s"},
		},
		"never expanded": {
			msgs: []*message.Message{result("1", "g", "a", device.StateSent)},
			want: device.GroupReport{
				States: map[device.State]int{device.StateSent: 1},
				Detail: "not all have ended within 1m0s; fanout's message with the number of devices didn't come",
			},
		},
		"after a restart": {
			msgs: []*message.Message{expanded("1", "g", 3)}, after: time.Minute,
			want: device.GroupReport{
				Devices: 3, Unfinished: 3, Detail: "not all have ended within 1m0s; results are counted since 2026-05-01T12:01:00Z, and the group is older",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := handlertest.NewHost(t)
				host.Advance(c.after)
				h := host.Build(config(func(c *Config) { c.Timeout = time.Minute }))
				defer h.(io.Closer).Close()
				for _, msg := range c.msgs {
					if out, err := handlertest.Handle(t.Context(), h, msg); err != nil || out != nil {
						t.Fatal(out, err)
					}
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				got := host.Published(summaries)
				if len(got) != 1 {
					t.Fatalf("%d summaries", len(got))
				}
				c.want.ID, c.want.Group, c.want.State, c.want.Host, c.want.Time = "1", "g", device.GroupUnfinished, "testhost", host.Now()
				if diff := cmp.Diff(&c.want, parsed(t, got[0])); diff != "" {
					t.Error(diff)
				}
				// Later messages are ignored until the group is forgotten.
				for _, name := range []string{"b", "c"} {
					if out, err := handlertest.Handle(t.Context(), h, result("1", "g", name, device.StateSent)); err != nil || out != nil {
						t.Error(out, err)
					}
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := len(h.(*tally).groups); n != 0 || h.(*tally).cost != 0 || h.(*tally).order.Len() != 0 || len(host.Published(summaries)) != 1 {
					t.Errorf("%d groups are remembered", n)
				}
			})
		})
	}
}

func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := handlertest.NewHost(t)
		h := host.Build(config(func(c *Config) { c.MaxResults = 10 }))
		defer h.(io.Closer).Close()
		for i := range 30 {
			for _, name := range []string{"a", "b"} {
				if out, err := handlertest.Handle(t.Context(), h, result(fmt.Sprint(i), "g", name, device.StateSent)); err != nil || out != nil {
					t.Fatal(out, err)
				}
			}
			if cost := h.(*tally).cost; cost > 10 {
				t.Fatalf("%d results are remembered", cost)
			}
		}
		synctest.Wait()
		got := host.Published(summaries)
		if len(got) < 25 {
			t.Errorf("%d summaries", len(got))
		}
		seen := map[string]bool{}
		for _, msg := range got {
			s := parsed(t, msg)
			if seen[s.ID] || s.State != device.GroupUnfinished || !strings.Contains(s.Detail, "more than 10 results") {
				t.Errorf("%+v", s)
			}
			seen[s.ID] = true
		}
	})
}

func TestNotToBePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := handlertest.NewHost(t)
		h := host.Build(config(func(c *Config) { c.Timeout = time.Minute }))
		if _, err := handlertest.Handle(t.Context(), h, expanded("1", "g", 1)); err != nil {
			t.Fatal(err)
		}
		host.Outage(errors.New("gone"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := h.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
		if _, err := handlertest.Handle(t.Context(), h, expanded("2", "g", 1)); err == nil {
			t.Error("it counts after its end")
		}
	})
}

// In any order and with repeated messages, each group has one summary, with the first result of
// each device.
func TestAnyOrder(t *testing.T) {
	states := []device.State{device.StateSent, device.StateOffline, device.StateUnknownDevice}
	rapid.Check(t, func(rt *rapid.T) {
		host := handlertest.NewHost(t)
		h := host.Build(config(nil))
		defer h.(io.Closer).Close()
		type event struct {
			group, device, state int
		}
		var events []event
		sizes := rapid.SliceOfN(rapid.IntRange(1, 4), 1, 3).Draw(rt, "sizes")
		for g, size := range sizes {
			for d := range size {
				events = append(events, event{g, d, rapid.IntRange(0, 2).Draw(rt, "state")})
			}
			events = append(events, event{g, -1, 0})
		}
		for range rapid.IntRange(0, 10).Draw(rt, "repeated") {
			e := rapid.SampledFrom(events).Draw(rt, "again")
			if e.device >= 0 {
				e.state = rapid.IntRange(0, 2).Draw(rt, "other")
			}
			events = append(events, e)
		}
		events = rapid.Permutation(events).Draw(rt, "order")
		first := make([]map[int]int, len(sizes))
		told := make([]bool, len(sizes))
		whole := make([]bool, len(sizes))
		for g := range first {
			first[g] = map[int]int{}
		}
		for _, e := range events {
			id := fmt.Sprint(e.group)
			msg := expanded(id, "g", sizes[e.group])
			if e.device >= 0 {
				msg = result(id, "g", fmt.Sprint(e.device), states[e.state])
				if _, ok := first[e.group][e.device]; !ok {
					first[e.group][e.device] = e.state
				}
			} else {
				whole[e.group] = true
			}
			out, err := handlertest.Handle(t.Context(), h, msg)
			s := summary(t, out, err)
			due := whole[e.group] && len(first[e.group]) == sizes[e.group]
			switch {
			case s == nil && due && !told[e.group]:
				rt.Fatalf("group %s is complete and has no summary", id)
			case s == nil:
				continue
			case !due:
				rt.Fatalf("a summary too early: %+v", s)
			}
			told[e.group] = true
			want := map[device.State]int{}
			for _, state := range first[e.group] {
				want[states[state]]++
			}
			if diff := cmp.Diff(want, s.States); diff != "" || s.Devices != sizes[e.group] || s.Unfinished != 0 {
				rt.Fatalf("%+v: %s", s, diff)
			}
		}
		for g, ok := range told {
			if !ok {
				rt.Fatalf("group %d has no summary", g)
			}
		}
	})
}

func TestNoResult(t *testing.T) {
	h := handlertest.NewHost(t).Build(config(nil))
	defer h.(io.Closer).Close()
	for _, body := range []string{"open", "[]", "{}"} {
		if _, err := handlertest.Handle(t.Context(), h, handlers.NewMessage([]byte(body))); handlers.KindOf(err) != handlers.KindPermanent {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// The page shows what a summary looks like.
func TestPage(t *testing.T) {
	_, rest, _ := strings.Cut(description, "```json\n")
	example, _, _ := strings.Cut(rest, "\n```")
	r := device.GroupReport{ID: "n-1", Group: "north", State: device.GroupFinished, Devices: 3, States: map[device.State]int{device.StateSent: 2, device.StateOffline: 1}, Host: "gateway-1"}
	var shown, is map[string]any
	if err := errors.Join(json.Unmarshal([]byte(example), &shown), json.Unmarshal(r.JSON(), &is)); err != nil {
		t.Fatal(err)
	}
	shown["time"] = is["time"]
	if diff := cmp.Diff(is, shown); diff != "" {
		t.Error(diff)
	}
}

func TestValidate(t *testing.T) {
	err := (&Config{}).Validate()
	for _, want := range []string{"to: ", "timeout: ", "max_results: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v says nothing of %s", err, want)
		}
	}
	if err := config(nil).Validate(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsRead(t *testing.T) {
	s, err := parseReport(handlertest.Gzip(t, result("i", "g", "d", device.StateSent)))
	if err != nil || s.ID != "i" || s.Group != "g" || s.Device != "d" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := parseReport(handlers.NewMessage([]byte(`{"id":"i","device":"\ud800","state":"sent"}`))); err == nil {
		t.Error("half of a surrogate pair is taken")
	}
}
