package attack

import (
	"math"
	"strings"
	"testing"
	"time"
)

// times returns figures of the given milliseconds.
func times(lost int, milliseconds ...int) figures {
	f := figures{lost: lost}
	for _, n := range milliseconds {
		f.took = append(f.took, time.Duration(n)*time.Millisecond)
	}
	return f
}

func TestJudge(t *testing.T) {
	const name = "silent-admin" // without a bound of its own
	allowed := allowedMiB(attackNamed(name).count, nil)
	good := func() []outcome {
		a := attackNamed(name)
		return []outcome{
			{attack: a, side: hostSide, beforeMiB: 30, peakMiB: 30 + allowed, readBefore: times(0, 10), readDuring: times(0, 20), livez: times(0, 1, 1000)},
			{attack: a, side: bareSide, beforeMiB: 10, peakMiB: 9999, readBefore: times(0, 10), readDuring: times(0, 5), livez: times(1, 5000)},
		}
	}
	for _, c := range []struct {
		name               string
		change             func(o []outcome) []outcome
		memory, p99, livez bool
	}{
		{"as asked", func(o []outcome) []outcome { return o }, true, true, true},
		{"memory", func(o []outcome) []outcome { o[0].peakMiB++; return o }, false, true, true},
		{"memory after a restart", func(o []outcome) []outcome {
			o[0].restartedMiB = o[0].beforeMiB + allowedMiB(0, []bound{held}) + 1
			return o
		}, false, true, true},
		{"p99", func(o []outcome) []outcome { o[0].readDuring = times(0, 21); return o }, true, false, true},
		{"p99 that the bare accept loop has too", func(o []outcome) []outcome {
			o[0].readDuring, o[1].readDuring = times(0, 60), times(0, 30)
			return o
		}, true, false, true},
		{"livez is slow", func(o []outcome) []outcome { o[0].livez = times(0, 1, 1001); return o }, true, true, false},
		{"livez is not answered", func(o []outcome) []outcome { o[0].livez = times(1, 1, 2); return o }, true, true, false},
		{"the worst of several pairs", func(o []outcome) []outcome {
			second := good()
			second[0].peakMiB++
			second[0].livez = times(0, 1001)
			return append(o, second...)
		}, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(c.change(good()))
			if len(v) != 1 || v[0].memory.holds != c.memory || v[0].p99.holds != c.p99 || v[0].livez.holds != c.livez {
				t.Errorf("got %+v", v)
			}
		})
	}
}

func TestAP99ThatTheBareAcceptLoopHasTooIsExcused(t *testing.T) {
	a := attackNamed("silent-admin")
	host := outcome{attack: a, side: hostSide, readBefore: times(0, 10), readDuring: times(0, 60)}
	for grown, excused := range map[int]bool{30: true, 29: false} {
		bare := outcome{attack: a, side: bareSide, readBefore: times(0, 10), readDuring: times(0, grown)}
		if v := judge([]outcome{host, bare}); v[0].p99.holds || v[0].p99.excused != excused {
			t.Errorf("beside %d ms: %s", grown, v[0].p99)
		}
	}
}

func TestARefusedAttackHasNoVerdict(t *testing.T) {
	all := []outcome{{attack: attackNamed("matches"), side: hostSide, refused: "too many repetitions"}}
	if v := judge(all); len(v) != 0 {
		t.Errorf("got %+v", v)
	}
	if text := report(all, "load"); !strings.Contains(text, "refused by validate") {
		t.Error(text)
	}
}

func TestFigures(t *testing.T) {
	begin := time.Now()
	var s series
	for i := range 100 {
		s.samples = append(s.samples, sample{at: begin.Add(time.Duration(i) * time.Second), took: time.Duration(100-i) * time.Millisecond, lost: i == 99})
	}
	f := s.between(begin, begin.Add(time.Hour))
	if f.percentile(50) != 50*time.Millisecond || f.percentile(99) != 99*time.Millisecond || f.percentile(100) != 100*time.Millisecond || f.lost != 1 {
		t.Errorf("got %s, %s, %s, %d lost", f.percentile(50), f.percentile(99), f.percentile(100), f.lost)
	}
	if few := s.between(begin.Add(10*time.Second), begin.Add(12*time.Second)); len(few.took) != 2 || few.lost != 0 {
		t.Errorf("got %+v", few)
	}
	if after, ok := s.firstAfter(begin.Add(97500 * time.Millisecond)); !ok || after != 502*time.Millisecond {
		t.Errorf("got %s, %t", after, ok)
	}
	if _, ok := s.firstAfter(begin.Add(98500 * time.Millisecond)); ok {
		t.Error("what was lost counts")
	}
	var none figures
	if none.percentile(99) != 0 || math.IsNaN(median(nil)) {
		t.Error("without samples there is no time")
	}
}
