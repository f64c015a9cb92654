package byteexpr

import (
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/checksum"
)

// crc16 is the beginning of the names of CRCs with 16 bits.
const crc16 = "crc16-"

// sums returns a function that computes a checksum of a text.
func sums(name string, check checksum.Sum) function {
	return function{usage: name + "(text)", takes: []string{"t"}, pure: true, build: func(_ *compiler, _ fault, args []Value) (Value, error) {
		return summing(args[0], check.Of), nil
	}}
}

func summing(of Value, sum func([]byte) uint32) Value {
	return NumberOf(func(in Input) (int, error) {
		mark := len(in.stack)
		if err := of.text(in); err != nil {
			return 0, err
		}
		return int(sum(in.pop(mark))), nil
	})
}

func buildCRC16(_ *compiler, f fault, args []Value) (Value, error) {
	check, ok := checksum.Named[crc16+args[0].s]
	if !ok || !args[0].constant {
		var names []string
		for name := range checksum.Named {
			if name, ok := strings.CutPrefix(name, crc16); ok {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return Value{}, f.errorf("the first argument of crc16 names the check; allowed: %s", strings.Join(names, ", "))
	}
	return summing(args[1], check.Of), nil
}
