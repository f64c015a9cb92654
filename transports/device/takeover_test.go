package device

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// claims starts to connect a device. The result comes later.
func claims(t *testing.T, r *Registry, from string, p *pipe) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := r.Connect(t.Context(), "d", from+":1000", p, nil)
		result <- err
	}()
	synctest.Wait()
	return result
}

// policy is a registry with a policy of takeovers.
func policy(t *testing.T, p Takeover) *Registry {
	t.Helper()
	return testRegistry(t, func(o *Options) { o.Takeover = p })
}

// The probe of a balancer connects, sends nothing and leaves. It replaces no session.
func TestASilentConnectionReplacesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := policy(t, "")
		live := newPipe(9)
		session := connect(t, r, "d", live)
		for range 20 {
			probe := newPipe(9)
			probe.silent = true
			result := claims(t, r, "192.0.2.1", probe)
			probe.change(func() { probe.gone = true })
			if err := <-result; !errors.Is(err, ErrGone) {
				t.Fatalf("got %v", err)
			}
		}
		if session.Reason() != "" || live.probed() == 0 {
			t.Errorf("the session ended: %q; %d probes", session.Reason(), live.probed())
		}
		newer := newPipe(9)
		newer.silent = true
		result := claims(t, r, "192.0.2.1", newer)
		time.Sleep(time.Hour)
		if session.Reason() != "" {
			t.Fatalf("the session ended: %q", session.Reason())
		}
		spoke := time.Now()
		newer.change(func() { newer.silent = false })
		if err := <-result; err != nil || session.Reason() != Replaced || time.Since(spoke) > recheckTime {
			t.Errorf("got %v, %q after %v", err, session.Reason(), time.Since(spoke))
		}
	})
}

// Every policy replaces a session whose peer doesn't respond.
func TestADeadSessionIsReplaced(t *testing.T) {
	for _, p := range []Takeover{TakeoverNewest, TakeoverIdle, TakeoverAuthenticated} {
		t.Run(string(p), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := policy(t, p)
				old := newPipe(9)
				old.authenticated = true
				session := connect(t, r, "d", old)
				newer := newPipe(9)
				newer.silent = true
				result := claims(t, r, "192.0.2.9", newer)
				time.Sleep(time.Minute)
				if session.Reason() != "" || old.probed() < 2 {
					t.Fatalf("the session ended: %q; %d probes", session.Reason(), old.probed())
				}
				old.change(func() { old.quietFor = probeTime })
				if err := <-result; err != nil || session.Reason() != Replaced {
					t.Errorf("got %v, %q", err, session.Reason())
				}
			})
		})
	}
}

func TestPoliciesOfTakeovers(t *testing.T) {
	for _, c := range []struct {
		policy                Takeover
		old, newer, takesOver bool
	}{
		{TakeoverNewest, true, false, true},
		{TakeoverIdle, false, true, false},
		{TakeoverAuthenticated, false, false, true},
		{TakeoverAuthenticated, true, false, false},
		{TakeoverAuthenticated, false, true, true},
		{TakeoverAuthenticated, true, true, true},
	} {
		t.Run(fmt.Sprint(c.policy, c.old, c.newer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := policy(t, c.policy)
				old, newer := newPipe(9), newPipe(9)
				old.authenticated, newer.authenticated = c.old, c.newer
				session := connect(t, r, "d", old)
				result := claims(t, r, "192.0.2.9", newer)
				time.Sleep(time.Hour)
				if got := session.Reason() == Replaced; got != c.takesOver {
					t.Errorf("replaced %v", got)
				}
				session.End(ClientClosed) // the device itself leaves
				if err := <-result; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A frame of another connection attaches no device whose session the policy protects.
func TestThePolicyProtectsFromAttaching(t *testing.T) {
	g := newGatherer(t, func(o *Options) { o.Takeover = TakeoverIdle })
	hub, _ := g.connect("hub")
	own, p := g.connect("m1")
	g.says(hub, "m1:forged")
	if own.Reason() != "" || p.closed {
		t.Errorf("the session ended: %q", own.Reason())
	}
	own.End(ClientClosed)
	g.says(hub, "m1:1")
	if g.Epoch("m1") == 0 {
		t.Error("m1 is offline")
	}
}

// Someone who knows the name of a device and always connects again can't keep the device out.
func TestAnAttackerDoesNotKeepADeviceOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := policy(t, TakeoverNewest)
		attack, stop := context.WithCancel(t.Context())
		for i := range 30 {
			go func() {
				for attack.Err() == nil {
					_, _ = r.Connect(attack, "d", fmt.Sprintf("[2001:db8::%x]:1000", i), newPipe(9), nil)
					time.Sleep(100 * time.Millisecond)
				}
			}()
		}
		time.Sleep(time.Minute)
		for range 10 {
			began := time.Now()
			err := ErrSuperseded // someone took over at the same time
			for errors.Is(err, ErrSuperseded) {
				err = <-claims(t, r, "192.0.2.9", newPipe(9))
			}
			if waited := time.Since(began); err != nil || waited > 2*flapPeriod {
				t.Errorf("%v; the device waited %v", err, waited)
			}
		}
		stop()
		r.CloseSessions(t.Context())
		time.Sleep(time.Second)
	})
}

func TestNetworkOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1000":               "192.0.2.7",
		"[::ffff:192.0.2.7]:1000":      "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:1000":  "2001:db8:1:2::",
		"[2001:db8:1:2::9]:2":          "2001:db8:1:2::",
		"[fe80::1%eth0]:1000":          "fe80::",
		"something that is no address": "something that is no address",
		"":                             "",
	} {
		if got := networkOf(remote); got != want {
			t.Errorf("%q: got %q, want %q", remote, got, want)
		}
	}
}

// Contenders come and go from several networks at the same time. In the end, none is left.
func TestContendersUnderStress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := policy(t, TakeoverAuthenticated)
		for i := range 40 {
			go func() {
				for j := range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*j)*time.Second)
					p := newPipe(9)
					p.authenticated, p.silent = i%3 == 0, j%4 == 0
					s, err := r.Connect(ctx, "d", fmt.Sprintf("192.0.2.%d:1", i%11), p, nil)
					cancel()
					if err == nil && i%2 == 0 {
						time.Sleep(time.Second)
						s.End(ClientClosed)
					}
				}
			}()
		}
		time.Sleep(time.Hour)
		for _, s := range r.Sessions() {
			s.End(Kicked)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for i := range r.shards {
			for device, c := range r.shards[i].contests {
				if len(c.waiting) > 0 {
					t.Errorf("%d contenders are left for %s", len(c.waiting), device)
				}
			}
		}
	})
}
