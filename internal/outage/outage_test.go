package outage

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// logged runs f with an outage of "it" in virtual time and expects these lines.
func logged(t *testing.T, f func(o *Outage), want ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		f(New(log, "it"))
		if got := strings.TrimSpace(out.String()); got != strings.Join(want, "\n") {
			t.Errorf("logged\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	})
}

func warns(err string) string {
	return `level=WARN msg="it doesn't work, trying again" err=` + err
}

func over(after string) string { return `level=INFO msg="it works again" after=` + after }

var (
	errA = errors.New("a")
	errB = errors.New("b")
)

func TestAnOutageIsLoggedOnceWithItsCausesAndItsEnd(t *testing.T) {
	logged(t, func(o *Outage) {
		o.Report(nil)
		if o.Down() || o.Err() != nil || !o.Since().IsZero() {
			t.Error("it doesn't work at the beginning")
		}
		began := time.Now()
		for _, err := range []error{errA, errA, errors.New("a"), errB, errB} {
			o.Report(err)
			time.Sleep(time.Second)
		}
		if !o.Down() || !errors.Is(o.Err(), errB) || !o.Since().Equal(began) {
			t.Errorf("down %v since %v: %v", o.Down(), o.Since(), o.Err())
		}
		o.Report(nil)
		o.Report(nil)
		if o.Down() || o.Err() != nil || !o.Since().IsZero() {
			t.Error("it doesn't work at the end")
		}
		o.Report(errA)
	}, warns("a"), warns("b"), over("5s"), warns("a"))
}

func TestUsersShareAnOutage(t *testing.T) {
	logged(t, func(o *Outage) {
		o.ReportOf(1, errB)
		o.ReportOf(2, errB)
		o.ReportOf(2, errA)
		o.ReportOf(1, errB)
		if !errors.Is(o.Err(), errA) {
			t.Errorf("the cause is %v", o.Err())
		}
		o.ReportOf(2, nil)
		time.Sleep(time.Minute)
		o.ReportOf(3, nil)
		if !errors.Is(o.Err(), errB) {
			t.Errorf("the cause is %v", o.Err())
		}
		o.ReportOf(1, nil)
	}, warns("b"), warns("a"), over("1m0s"))
}

func TestAUserIsForgotten(t *testing.T) {
	logged(t, func(o *Outage) {
		o.ReportOf(1, errA)
		o.ReportOf(2, nil)
		if !o.Forget(1) || o.Down() {
			t.Error("it works for nobody")
		}
		o.ReportOf(2, errB)
		if o.Forget(2) || o.Down() {
			t.Error("somebody is left")
		}
		o.Report(nil)
	}, warns("a"), over("0s"), warns("b"))
}

func TestAFloodIsBounded(t *testing.T) {
	var want []string
	for range Burst {
		want = append(want, warns("a"), over("1ms"))
	}
	logged(t, func(o *Outage) {
		for range 1000 {
			o.Report(errA)
			time.Sleep(time.Millisecond)
			o.Report(nil)
		}
		// A long outage is logged, with its whole length.
		for range 60 {
			o.Report(errB)
			time.Sleep(time.Second)
		}
		o.Report(nil)
	}, append(want, warns("b"), over("1m0s"))...)
}

func TestChangingCausesAreBounded(t *testing.T) {
	var want []string
	for n := range Burst {
		want = append(want, warns(fmt.Sprint(n)))
	}
	logged(t, func(o *Outage) {
		for n := range 1000 {
			o.Report(fmt.Errorf("%d", n))
		}
		o.Report(nil)
	}, append(want, over("0s"))...)
}

func TestReportsAtTheSameTime(t *testing.T) {
	o := New(slog.New(slog.DiscardHandler), "it")
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for range 100 {
				o.ReportOf(n, errA)
				_, _, _ = o.Down(), o.Err(), o.Since()
				o.Report(nil)
				o.ReportOf(n, nil)
			}
		})
	}
	all.Wait()
	if o.Down() {
		t.Errorf("it doesn't work: %v", o.Err())
	}
}

func TestReportingThatItWorksDoesntAllocate(t *testing.T) {
	o := New(slog.New(slog.DiscardHandler), "it")
	if n := testing.AllocsPerRun(100, func() { o.Report(nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
