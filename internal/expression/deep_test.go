package expression

import "testing"

// Values that are nested as deep as the limits allow don't overflow the stack, which nothing could recover from.
func TestDeepValues(t *testing.T) {
	for _, source := range []string{
		`let a = reduce(1..240000, [#acc], 0); let b = reduce(1..240000, [#acc], 0); a == b`,
		`let a = reduce(1..240000, ({a: #acc}), 0); let b = reduce(1..240000, ({a: #acc}), 0); a == b`,
		`max(reduce(1..200000, [#acc], 0))`,
	} {
		e := environment()
		p, err := e.Compile(source, Body)
		if err != nil {
			t.Fatal(err)
		}
		data, _, err := p.Body(input(e, ""))
		if err == nil && string(data) != "true" && string(data) != "false" {
			t.Errorf("%s gives %.50s", source, data)
		}
	}
}
