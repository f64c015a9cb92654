package device

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestKick(t *testing.T) {
	r := testRegistry(t, nil)
	sub := r.feed.newSubscriber("p")
	p := newPipe(0)
	s := connect(t, r, "d", p)
	was, err := r.Kick("d", "maintenance until 9:00")
	if err != nil || was.Device != "d" || was.Epoch != s.Epoch() || was.RemoteAddr != "192.0.2.1:1000" {
		t.Errorf("kicked %+v: %v", was, err)
	}
	if !p.closed || s.Reason() != Kicked {
		t.Errorf("closed %v, reason %q", p.closed, s.Reason())
	}
	events := sub.events()
	if got, want := short(events), []string{"d connected", "d disconnected kicked"}; !slices.Equal(got, want) || events[0].Detail != "" || events[1].Detail != "maintenance until 9:00" {
		t.Errorf("events %+v", events)
	}
	if _, err := r.Kick("d", ""); !errors.Is(err, ErrOffline) {
		t.Errorf("kicking an offline device: %v", err)
	}
	connect(t, r, "d", newPipe(0)) // a kicked device may connect again
}

// A kick treats commands as every end of a session does.
func TestCommandsOfAKickedDevice(t *testing.T) {
	r := testRegistry(t, nil)
	p := newPipe(len("how?\n") + 2)
	connect(t, r, "d", p)
	orphaned := false
	asked, err := r.Enqueue("d", []byte("how?"), EnqueueOptions{Request: &Request{Timeout: time.Hour, Matches: func([]byte) bool { return true }, Distinct: true, MaxOpen: 2}})
	if err != nil {
		t.Fatal(err)
	}
	begun := enqueue(t, r, "d", "open")
	waits, err := r.Enqueue("d", []byte("close"), EnqueueOptions{Orphaned: func() { orphaned = true }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Kick("d", "moved"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range []Write{asked, begun, waits} {
		written := w.Wait(t.Context())
		got = append(got, fmt.Sprint(int(written.Fate), " ", written.Detail))
	}
	want := []string{
		fmt.Sprint(int(NoReply), " the session ended (kicked) before it answered"),
		fmt.Sprint(int(Unknown), " the session ended (kicked) after 2 of 5 bytes"),
		fmt.Sprint(int(Offline), " the session ended (kicked)"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !orphaned {
		t.Error("the owner of the waiting command wasn't told that the device is offline")
	}
}

func TestBan(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	metrics := prometheus.NewRegistry()
	r := testRegistry(t, func(o *Options) {
		o.Registerer, o.Now = metrics, func() time.Time { return now }
		o.Canonical = func(device string) (string, error) { return strings.ToLower(device), CheckName(device) }
	})
	sub := r.feed.newSubscriber("p")
	s := connect(t, r, "d", newPipe(0))
	connect(t, r, "e", newPipe(0))
	banned, err := r.Ban(Ban{Device: "D", Until: now.Add(time.Hour), Reason: "stolen"})
	if want := (Banned{Ban: Ban{Device: "d", Since: now, Until: now.Add(time.Hour), Reason: "stolen"}, Kicked: true}); err != nil || banned != want {
		t.Errorf("banned %+v: %v", banned, err)
	}
	if s.Reason() != Kicked {
		t.Errorf("the session's reason is %q", s.Reason())
	}
	if e := sub.events(); len(e) != 3 || e[2].Device != "d" || e[2].Reason != Kicked || e[2].Detail != "banned: stolen" {
		t.Errorf("events %+v", e)
	}
	refused := func(why string) {
		t.Helper()
		if _, err := r.Connect(t.Context(), "d", "192.0.2.1:1000", newPipe(0), nil); why == "" && err != nil || why != "" && (!errors.Is(err, ErrBanned) || err.Error() != why) {
			t.Errorf("connecting: %v", err)
		}
	}
	refused(`the device is banned: "d", until 2026-01-02T04:04:05Z`)
	counted := func(n int) {
		t.Helper()
		want := fmt.Sprintf("# HELP pentrough_device_bans Devices that an operator has banned.\n# TYPE pentrough_device_bans gauge\npentrough_device_bans %d\n", n)
		if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "pentrough_device_bans"); err != nil {
			t.Error(err)
		}
	}
	counted(1)

	// A second ban replaces the first one.
	if banned, err = r.Ban(Ban{Device: "d"}); err != nil || !banned.Replaced || banned.Kicked {
		t.Errorf("banned again %+v: %v", banned, err)
	}
	now = now.Add(2 * time.Hour)
	refused(`the device is banned: "d"`)
	if got := r.Bans(); len(got) != 1 || got[0] != banned.Ban {
		t.Errorf("the bans %+v", got)
	}
	if b, err := r.Unban("D"); err != nil || b != banned.Ban {
		t.Errorf("unbanned %+v: %v", b, err)
	}
	if _, err := r.Unban("d"); !errors.Is(err, ErrNotBanned) {
		t.Errorf("unbanning a device that isn't banned: %v", err)
	}
	refused("")

	counted(0)

	// A ban ends by itself.
	if _, err := r.Ban(Ban{Device: "d", Until: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	refused("")
	if _, err := r.Unban("d"); !errors.Is(err, ErrNotBanned) || len(r.Bans()) > 0 {
		t.Errorf("a ban that has ended is still there: %v", err)
	}
}

func TestBadKicksAndBans(t *testing.T) {
	r := testRegistry(t, nil)
	for _, tt := range []struct {
		device, reason string
		want           error
	}{
		{"", "", ErrDevice},
		{strings.Repeat("d", 256), "", ErrDevice},
		{"d\x1b[2J", "", ErrDevice},
		{"d", "a\nb", ErrReason},
		{"d", "\xff", ErrReason},
		{"d", strings.Repeat("r", 256), ErrReason},
	} {
		if _, err := r.Kick(tt.device, tt.reason); !errors.Is(err, tt.want) {
			t.Errorf("kicking %q because of %q: %v", tt.device, tt.reason, err)
		}
		if _, err := r.Ban(Ban{Device: tt.device, Reason: tt.reason}); !errors.Is(err, tt.want) {
			t.Errorf("banning %q because of %q: %v", tt.device, tt.reason, err)
		}
		if _, err := r.Unban(tt.device); errors.Is(tt.want, ErrDevice) && !errors.Is(err, tt.want) {
			t.Errorf("unbanning %q: %v", tt.device, err)
		}
	}
}

func TestTheNumberOfBansIsLimited(t *testing.T) {
	now := time.Now()
	r := testRegistry(t, func(o *Options) { o.Now = func() time.Time { return now } })
	for i := range MaxBans {
		if _, err := r.Ban(Ban{Device: fmt.Sprint(i), Until: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Ban(Ban{Device: "d"}); !errors.Is(err, ErrManyBans) {
		t.Errorf("one ban too many: %v", err)
	}
	if b, err := r.Ban(Ban{Device: "7"}); err != nil || !b.Replaced {
		t.Errorf("replacing a ban: %+v, %v", b, err)
	}
	now = now.Add(time.Hour)
	if _, err := r.Ban(Ban{Device: "d"}); err != nil || len(r.Bans()) != 2 {
		t.Errorf("after the end of most bans: %v, %d are left", err, len(r.Bans()))
	}
}

// A device connects again and again, and others end its session. No session outlives a ban, and
// one caller at most ends each session.
func TestKickAndBanRaces(t *testing.T) {
	r := testRegistry(t, func(o *Options) { o.NewNames = NameLimit{} })
	sub := r.feed.newSubscriber("p")
	var all sync.WaitGroup
	quit := make(chan struct{})
	until := func(f func()) {
		all.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					f()
				}
			}
		})
	}
	until(func() {
		s, err := r.Connect(t.Context(), "d", "192.0.2.1:1000", newPipe(100), nil)
		if err != nil {
			if !errors.Is(err, ErrBanned) {
				t.Error(err)
			}
			return
		}
		s.End(ClientClosed)
	})
	kicked := 0
	until(func() {
		if _, err := r.Kick("d", "race"); err == nil {
			kicked++
		}
	})
	until(func() {
		if w, err := r.Enqueue("d", []byte("open"), EnqueueOptions{}); err == nil {
			w.Wait(t.Context())
		}
	})
	for range 200 {
		if _, err := r.Ban(Ban{Device: "d", Reason: "race"}); err != nil {
			t.Fatal(err)
		}
		if epoch := r.Epoch("d"); epoch != 0 {
			t.Fatalf("a banned device has the session %d", epoch)
		}
		if _, err := r.Unban("d"); err != nil {
			t.Fatal(err)
		}
	}
	close(quit)
	all.Wait()
	ends := 0
	for _, e := range sub.events() {
		if e.Detail == "race" {
			ends++
		}
	}
	if ends > kicked {
		t.Errorf("%d kicks have %d events", kicked, ends)
	}
}
