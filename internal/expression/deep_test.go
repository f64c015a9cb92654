package expression

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// A value can't be nested deeper than JSON may be. Otherwise a walk could overflow the stack,
// which ends the program.
func TestDeepValues(t *testing.T) {
	for _, source := range []string{
		`let a = reduce(1..%[1]d, [#acc], 0); let b = reduce(1..%[1]d, [#acc], 0); a == b`,
		`let a = reduce(1..%[1]d, ({a: #acc}), 0); let b = reduce(1..%[1]d, ({a: #acc}), 0); a == b`,
		`max(reduce(1..%d, [#acc], 0)) == 0`,
		`flatten(reduce(1..%d, concat([#acc], []), 0)) == [0]`,
	} {
		if got, _, err := body(t, fmt.Sprintf(source, jsontext.MaxDepth), ""); err != nil || got != "true" {
			t.Errorf("%s with %d: %s, %v", source, jsontext.MaxDepth, got, err)
		}
		for _, deeper := range []int{jsontext.MaxDepth + 2, 500_000} {
			if _, _, err := body(t, fmt.Sprintf(source, deeper), ""); err == nil || !strings.Contains(err.Error(), "nested too deep; allowed: 500 levels") {
				t.Errorf("%s with %d: %v", source, deeper, err)
			}
		}
	}
}
