package circuitbreaker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelled is a key in the model, which has no limit of keys.
type modelled struct {
	inARow int
	until  time.Time
	open   bool
	probe  *running
}

type running struct {
	key   string
	try   *try
	probe bool
}

// Runs of a few keys begin and end in any order. Each key is tried, refused and probed as in the
// model.
func TestCircuitsAreAsModelled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 3).Draw(t, "failures")
		const pause = 10 * time.Second
		c := newCircuits(&Config{Failures: limit, Open: pause, MaxKeys: 8})
		keys := map[string]*modelled{"a": {}, "b": {}, "": {}}
		now := time.Unix(1_000_000, 0)
		var runs []*running
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 12).Draw(t, "seconds")) * time.Second)
			},
			"a run begins": func(t *rapid.T) {
				key := rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "key")
				k := keys[key]
				want := !k.open || !now.Before(k.until) && k.probe == nil
				got, wait := c.beginRun(key, now)
				if (got != nil) != want {
					t.Fatalf("key %q is tried: %v, want %v", key, got != nil, want)
				}
				if got == nil {
					if k.open && now.Before(k.until) && wait != k.until.Sub(now) {
						t.Fatalf("key %q may be tried in %v, want %v", key, wait, k.until.Sub(now))
					}
					return
				}
				r := &running{key, got, k.open}
				if k.open {
					k.probe = r
				}
				runs = append(runs, r)
			},
			"a run ends": func(t *rapid.T) {
				if len(runs) == 0 {
					t.Skip("none runs")
				}
				i := rapid.IntRange(0, len(runs)-1).Draw(t, "run")
				o := rapid.SampledFrom([]outcome{succeeded, failed, failed, failed, undecided}).Draw(t, "outcome")
				r := runs[i]
				runs = append(runs[:i:i], runs[i+1:]...)
				k, want := keys[r.key], unchanged
				switch {
				case r.probe:
					k.probe = nil
					switch o {
					case succeeded:
						*k, want = modelled{}, closed
					case failed:
						k.until = now.Add(pause)
					}
				case k.open || o == undecided:
				case o == succeeded:
					k.inARow = 0
				default:
					if k.inARow++; k.inARow == limit {
						k.open, k.until, want = true, now.Add(pause), opened
					}
				}
				if got := c.endRun(r.try, o, now); got != want {
					t.Fatalf("the end of a run of %q changed %v, want %v", r.key, got, want)
				}
			},
			"": func(t *rapid.T) {
				open, failing := 0, 0
				for _, k := range keys {
					if k.open {
						open++
					}
					if k.open || k.inARow > 0 {
						failing++
					}
				}
				if c.countOpen() != open || len(c.byKey) != failing || c.failed.Len() != failing {
					t.Fatalf("%d open of %d and %d failing keys, want %d of %d", c.countOpen(), len(c.byKey), c.failed.Len(), open, failing)
				}
			},
		})
	})
}

// Whatever keys fail, at most max_keys are remembered, and the counts stay right.
func TestMemoryIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCircuits(&Config{Failures: 2, Open: time.Second, MaxKeys: 3})
		now := time.Unix(1_000_000, 0)
		for range rapid.IntRange(1, 60).Draw(t, "runs") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "pause")) * time.Millisecond)
			key := rapid.StringMatching("[a-g]").Draw(t, "key")
			if try, _ := c.beginRun(key, now); try != nil {
				c.endRun(try, rapid.SampledFrom([]outcome{succeeded, failed, failed}).Draw(t, "outcome"), now)
			}
			open := 0
			for e := c.failed.Front(); e != nil; e = e.Next() {
				if k := e.Value.(*circuit); k.failures >= c.failures {
					open++
				}
			}
			if len(c.byKey) > 3 || len(c.byKey) != c.failed.Len() || c.countOpen() != open {
				t.Fatalf("%d and %d keys, %d open, counted as %d", len(c.byKey), c.failed.Len(), open, c.countOpen())
			}
		}
	})
}
