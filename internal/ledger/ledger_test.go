package ledger

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
)

func TestMain(m *testing.M) { await.Main(m) }

func TestContract(t *testing.T) {
	middlewaretest.RunLedger(t, func(*testing.T) middleware.Ledger { return New() })
}

// modelled is a record in the model, with the time of its confirmation.
type modelled struct {
	digest    middleware.Digest
	outputs   []middleware.Output
	done      bool
	confirmed time.Time
}

// model is a simple ledger: each call looks at all records.
type model struct {
	records   map[middleware.LedgerKey]*modelled
	order     []middleware.LedgerKey // confirmed, the oldest first
	open      []middleware.LedgerKey // done and unconfirmed, the oldest first
	most      int                    // of open
	retention time.Duration
	limit     int
}

func (m *model) forget() {
	for len(m.order) > 0 {
		if len(m.order) <= m.limit+1 && time.Since(m.records[m.order[0]].confirmed) < m.retention {
			return
		}
		delete(m.records, m.order[0])
		m.order = m.order[1:]
	}
}

func (m *model) confirm(key middleware.LedgerKey) {
	if r := m.records[key]; r != nil && r.done {
		r.confirmed = time.Now()
		same := func(k middleware.LedgerKey) bool { return k == key }
		m.order, m.open = slices.DeleteFunc(m.order, same), slices.DeleteFunc(m.open, same)
		m.order = append(m.order, key)
		m.forget()
	}
}

// bubbled is a test without Deadline, which a synctest bubble forbids.
type bubbled struct{ rapid.TB }

func TestModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubbled{t}, func(t *rapid.T) {
			l := New()
			l.maxUnconfirmed = rapid.IntRange(1, 4).Draw(t, "unconfirmed")
			m := &model{
				most:    l.maxUnconfirmed,
				records: map[middleware.LedgerKey]*modelled{}, retention: 10 * time.Second, limit: rapid.IntRange(0, 3).Draw(t, "limit"),
			}
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			key := rapid.Custom(func(t *rapid.T) middleware.LedgerKey {
				return middleware.LedgerKey{Pipeline: "p", ID: strconv.Itoa(rapid.IntRange(0, 6).Draw(t, "id"))}
			})
			t.Repeat(map[string]func(*rapid.T){
				"reserve": func(t *rapid.T) {
					k, digest := key.Draw(t, "key"), middleware.Digest{rapid.Byte().Filter(func(b byte) bool { return b < 2 }).Draw(t, "body")}
					m.forget()
					got, err := l.Reserve(ended, k, digest, middleware.Origin{})
					r := m.records[k]
					want := middleware.Claim{State: middleware.ClaimReserved}
					switch {
					case r == nil:
						m.records[k] = &modelled{digest: digest}
					case !r.done:
						if err == nil {
							t.Fatalf("claimed %+v of a key that is held", got)
						}
						return
					case r.digest != digest:
						want.State = middleware.ClaimReused
					default:
						want = middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}
					}
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Fatal(diff)
					}
				},
				"commit": func(t *rapid.T) {
					k := key.Draw(t, "key")
					outputs := []middleware.Output{{UUID: rapid.String().Draw(t, "uuid")}}
					err := l.Commit(k, outputs)
					r := m.records[k]
					held := r != nil && !r.done
					if held != (err == nil) {
						t.Fatalf("Commit = %v, reserved: %v", err, held)
					}
					if held {
						r.done, r.outputs = true, outputs
						if m.open = append(m.open, k); len(m.open) > m.most {
							delete(m.records, m.open[0])
							m.open = m.open[1:]
						}
					}
				},
				"release": func(t *rapid.T) {
					k := key.Draw(t, "key")
					l.Release(k)
					if r := m.records[k]; r != nil && !r.done {
						delete(m.records, k)
					}
				},
				"confirm": func(t *rapid.T) {
					k := key.Draw(t, "key")
					if err := l.Confirm(k, keep(m.retention, m.limit)); err != nil {
						t.Fatal(err)
					}
					m.confirm(k)
				},
				"wait": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 12).Draw(t, "seconds")) * time.Second)
				},
				"": func(t *rapid.T) {
					if f := l.finished["p"]; f != nil && (f.confirmed.Len() > m.limit+1 || f.unconfirmed.Len() > m.most) {
						t.Fatalf("%d confirmed records, the limit is %d; %d unconfirmed, of %d", f.confirmed.Len(), m.limit, f.unconfirmed.Len(), m.most)
					}
					if len(l.records) != len(m.records) {
						t.Fatalf("%d records, want %d", len(l.records), len(m.records))
					}
				},
			})
		})
	})
}

func TestConfirmedRecordsAreForgottenAfterTheirRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		for i := range 1000 {
			finish(t, l, key(i), time.Minute, 10_000)
		}
		time.Sleep(30 * time.Second)
		finish(t, l, key(1000), time.Minute, 10_000)
		time.Sleep(30 * time.Second)
		if claim, err := l.Reserve(t.Context(), key(0), middleware.Digest{}, middleware.Origin{}); err != nil || claim.State != middleware.ClaimReserved {
			t.Errorf("after its retention: %+v, %v", claim, err)
		}
		if n := len(l.records); n != 2 {
			t.Errorf("%d records are left, want the reserved one and the young one", n)
		}
	})
}

// An ack may be lost in an outage of the source. The message is redelivered when the source is
// back, even after a long outage.
func TestTheRetentionStopsWithTheClock(t *testing.T) {
	l := New()
	var present time.Duration
	here := keep(time.Minute, 10)
	here.Clock = func() time.Duration { return present }
	claim := func(want middleware.ClaimState) {
		t.Helper()
		if claim, err := l.Reserve(t.Context(), key(0), middleware.Digest{}, middleware.Origin{}); err != nil || claim.State != want {
			t.Errorf("%+v, %v, want state %d", claim, err, want)
		}
	}
	claim(middleware.ClaimReserved)
	if err := l.Commit(key(0), nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Confirm(key(0), here); err != nil {
		t.Fatal(err)
	}
	present = time.Minute - 1
	claim(middleware.ClaimDone)
	present = time.Minute
	claim(middleware.ClaimReserved)
}

// An id that is repeated is remembered for its retention after the last time.
func TestConfirmingAgainRestartsTheRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		finish(t, l, key(0), time.Minute, 10)
		for range 5 {
			time.Sleep(50 * time.Second)
			claim, err := l.Reserve(t.Context(), key(0), middleware.Digest{}, middleware.Origin{})
			if err != nil || claim.State != middleware.ClaimDone {
				t.Fatalf("%+v, %v", claim, err)
			}
			confirm(t, l, key(0), time.Minute, 10)
		}
	})
}

func TestLimitForgetsTheOldest(t *testing.T) {
	l := New()
	const limit = 10
	for i := range 100 {
		finish(t, l, key(i), time.Hour, limit)
	}
	for i := range 100 {
		claim, err := l.Reserve(t.Context(), key(99-i), middleware.Digest{}, middleware.Origin{})
		if err != nil {
			t.Fatal(err)
		}
		if want := i <= limit; want != (claim.State == middleware.ClaimDone) {
			t.Errorf("%d newer records: %+v", i, claim)
		}
	}
}

// Records whose messages are never redelivered don't accumulate.
func TestUnconfirmedRecordsAreBounded(t *testing.T) {
	l := New()
	l.maxUnconfirmed = 10
	for i := range 100 {
		if _, err := l.Reserve(t.Context(), key(i), middleware.Digest{}, middleware.Origin{}); err != nil {
			t.Fatal(err)
		}
		if err := l.Commit(key(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.records); n != 10 {
		t.Errorf("%d records are left", n)
	}
	if claim, err := l.Reserve(t.Context(), key(99), middleware.Digest{}, middleware.Origin{}); err != nil || claim.State != middleware.ClaimDone {
		t.Errorf("the newest: %+v, %v", claim, err)
	}
	confirm(t, l, key(0), time.Hour, 1) // forgotten, and without effect
}

func TestPipelinesHaveTheirOwnBounds(t *testing.T) {
	l := New()
	other := middleware.LedgerKey{Pipeline: "q", ID: "0"}
	finish(t, l, other, time.Hour, 0)
	for i := range 10 {
		finish(t, l, key(i), time.Hour, 0)
	}
	if claim, err := l.Reserve(t.Context(), other, middleware.Digest{}, middleware.Origin{}); err != nil || claim.State != middleware.ClaimDone {
		t.Errorf("%+v, %v", claim, err)
	}
}

// If many runs of one id begin at once, one at a time has it. Each of them either runs or gets the
// outputs of another one.
func TestOneRunAtATime(t *testing.T) {
	l := New()
	var running, failed, ran atomic.Int32
	var work sync.WaitGroup
	for range 64 {
		work.Go(func() {
			claim, err := l.Reserve(t.Context(), key(0), middleware.Digest{}, middleware.Origin{})
			switch {
			case err != nil:
				t.Error(err)
			case claim.State == middleware.ClaimReserved:
				if running.Add(1) != 1 {
					t.Error("two runs at once")
				}
				fails := failed.Add(1) <= 10
				running.Add(-1)
				if fails {
					l.Release(key(0))
					return
				}
				ran.Add(1)
				if err := l.Commit(key(0), []middleware.Output{{UUID: "u"}}); err != nil {
					t.Error(err)
				}
			case claim.State != middleware.ClaimDone || len(claim.Outputs) != 1:
				t.Errorf("%+v", claim)
			}
		})
	}
	work.Wait()
	if ran.Load() != 1 {
		t.Errorf("%d runs succeeded", ran.Load())
	}
}

func key(i int) middleware.LedgerKey {
	return middleware.LedgerKey{Pipeline: "p", ID: strconv.Itoa(i), Device: "d"}
}

func finish(t testing.TB, l *Ledger, k middleware.LedgerKey, period time.Duration, limit int) {
	t.Helper()
	if claim, err := l.Reserve(context.Background(), k, middleware.Digest{}, middleware.Origin{}); err != nil || claim.State != middleware.ClaimReserved {
		t.Fatalf("%+v, %v", claim, err)
	}
	if err := l.Commit(k, nil); err != nil {
		t.Fatal(err)
	}
	confirm(t, l, k, period, limit)
}

// keep is a retention on a clock that always runs.
func keep(period time.Duration, limit int) middleware.Retention {
	return middleware.Retention{Period: period, Limit: limit, Clock: func() time.Duration { return time.Since(time.Unix(0, 0)) }}
}

func confirm(t testing.TB, l *Ledger, k middleware.LedgerKey, period time.Duration, limit int) {
	t.Helper()
	if err := l.Confirm(k, keep(period, limit)); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkCommand(b *testing.B) {
	l := New()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		finish(b, l, middleware.LedgerKey{Pipeline: "p", ID: fmt.Sprint(i), Device: "127.0.0.1"}, time.Minute, 100_000)
	}
}
