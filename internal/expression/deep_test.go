package expression

import (
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// Values that are nested as deep as the limits allow don't overflow the stack, which nothing could
// recover from. Comparing the deepest takes half a minute with the race detector, so the test divides
// the limits, the depth and the stack by the same number.
func TestDeepValues(t *testing.T) {
	const scale = 32 // a power of two, as stacks grow by those
	whole := debug.SetMaxStack(1 << 30)
	defer debug.SetMaxStack(whole)
	debug.SetMaxStack(whole / scale)
	limits := Limits{
		Steps: DefaultLimits.Steps / scale, Elements: DefaultLimits.Elements / scale, Bytes: DefaultLimits.Bytes / scale,
		Payload: DefaultLimits.Payload, Time: time.Hour,
	}
	for _, c := range []struct {
		source  string
		deepest int // that the limits allow, about
		want    string
	}{
		{`let a = reduce(1..%[1]d, [#acc], 0); let b = reduce(1..%[1]d, [#acc], 0); a == b`, 240_000, "true"},
		{`let a = reduce(1..%[1]d, ({a: #acc}), 0); let b = reduce(1..%[1]d, ({a: #acc}), 0); a == b`, 240_000, "true"},
		{`max(reduce(1..%d, [#acc], 0))`, 480_000, "recursion depth exceeded"},
	} {
		run := func(depth int) string {
			e := environment()
			e.limits = limits
			p, err := e.Compile(fmt.Sprintf(c.source, depth/scale), Body)
			if err != nil {
				t.Fatal(err)
			}
			data, _, err := p.Body(input(e, ""))
			if err != nil {
				return err.Error()
			}
			return string(data)
		}
		if got := run(c.deepest); !strings.Contains(got, c.want) {
			t.Errorf("%s with %d: %.200s, want %s", c.source, c.deepest, got, c.want)
		}
		if got, deeper := run(c.deepest*11/10), "more than"; !strings.Contains(got, deeper) {
			t.Errorf("%s with %d: %.200s, want %s", c.source, c.deepest*11/10, got, deeper)
		}
	}
}
