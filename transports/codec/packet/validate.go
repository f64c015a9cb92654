package packet

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/byteexpr"
	"github.com/pentrough/pentrough/internal/checksum"
	"github.com/pentrough/pentrough/internal/exprerror"
	"github.com/pentrough/pentrough/transports/codec"
)

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	_, err := c.New()
	return err
}

// New builds the framing.
func (c *Config) New() (codec.Framing, error) {
	var all problems
	if c.Max < 1 {
		all.add("max", "%d is not at least 1", c.Max)
	}
	f := &framing{resync: c.Resync, max: c.Max}
	var kinds []*kind
	for i := range c.Kinds {
		at := kindPath(i)
		k := c.Kinds[i].build(at, &all)
		kinds = append(kinds, k)
		if k.min > c.Max {
			all.add(at, "the smallest frame has %d bytes, and max is %d", k.min, c.Max)
		}
		if k.in {
			f.in = append(f.in, k)
			f.longest = max(f.longest, len(k.starts))
		}
		if k.out {
			f.out = append(f.out, k)
		}
	}
	if len(f.in) == 0 {
		all.add("kinds", "devices can't send anything; add a kind without only = \"out\"")
	}
	checkStarts(kinds, c.Resync, &all)
	checkSent(kinds, &all)
	if err := errors.Join(all...); err != nil {
		return nil, err
	}
	return f, nil
}

// problems collects the errors of Validate.
type problems []error

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, codec.Invalid(field, format, args...))
}

// bytes returns the bytes that a text of the configuration stands for. An empty text stands for
// none. For a wrong text it adds a problem and returns the text unchanged, so that no further
// problems follow.
func (p *problems) bytes(field, text string) []byte {
	if text == "" {
		return nil
	}
	b, err := codec.ParseBytes(text)
	if err != nil {
		p.add(field, "%v", err)
		return []byte(text)
	}
	return b
}

// valueOf returns the number of an optional setting, or 0.
func valueOf(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

func kindPath(i int) string { return fmt.Sprintf("kinds[%d]", i) }

// checkStarts checks that each kind can be chosen by its start. With resync, it also checks that
// each kind has a start that the codec can search for.
func checkStarts(kinds []*kind, resync bool, all *problems) {
	for j, later := range kinds {
		if !later.in {
			continue
		}
		if resync && len(later.starts) == 0 {
			all.add("resync", "%s has no starts, so a frame may start at any byte", kindPath(j))
		}
		for i, earlier := range kinds[:j] {
			if earlier.in && bytes.HasPrefix(later.starts, earlier.starts) {
				all.add(kindPath(i)+".starts", "all frames of %s start like this, too; put %s first", kindPath(j), kindPath(j))
			}
		}
	}
}

// checkSent checks that every kind that the host sends can be chosen. The host uses the first kind
// whose length field can store the length of the frame. So the length field of each kind must
// allow larger frames than that of the kind before.
func checkSent(kinds []*kind, all *problems) {
	before, last := "", -1
	for i, k := range kinds {
		if !k.out {
			continue
		}
		limit := -1
		if k.head > len(k.starts) {
			limit = int(min(k.length.largest(), k.length.mask)) + k.length.add
		}
		if before != "" && (last < 0 || limit <= last) {
			all.add(kindPath(i), "a command could also be a frame of %s; set only = \"in\" for one of them", before)
		}
		before, last = kindPath(i), limit
	}
}

// build builds a kind and adds its problems.
func (c *Kind) build(path string, all *problems) *kind {
	k := &kind{
		name: c.Name, in: c.Only != onlyOut, out: c.Only != onlyIn, size: valueOf(c.Size),
		starts: all.bytes(path+".starts", c.Starts), ends: all.bytes(path+".ends", c.Ends),
	}
	k.measured = c.Size != nil || c.Length != nil || len(k.ends) > 0
	switch {
	case c.Only != "" && c.Only != onlyIn && c.Only != onlyOut:
		all.add(path+".only", "%q is neither in nor out", c.Only)
	case k.in && !k.measured:
		all.add(path, "nothing says where a frame ends; set size, length or ends")
	case c.Size != nil && c.Length != nil:
		all.add(path+".length", "size already says where a frame ends; remove one of them")
	}
	k.head = len(k.starts)
	before := k.head // the bytes before the check in the smallest frame
	if c.Length != nil && c.Size == nil {
		c.Length.build(path+".length", k, all)
		if k.length != nil {
			before = max(before, k.length.at+k.length.number.size)
		}
	}
	after := len(k.ends)
	if c.Check != nil {
		after += c.Check.build(path+".check", k, all)
	}
	k.min = max(1, before+after)
	if c.Size != nil {
		if k.size < k.min {
			all.add(path+".size", "%d is too small; the parts of a frame have %d bytes", k.size, k.min)
		}
		k.min = max(k.min, k.size)
	}
	if k.check != nil && k.check.from > k.min-after {
		all.add(path+".check.from", "%d is outside of the smallest frame, whose check is at byte %d", k.check.from, k.min-after)
	}
	if len(c.Escape) > 0 {
		k.escape = c.buildEscape(path+".escape", k, all)
	}
	return k
}

// The largest sizes of numbers in bytes and digits.
const (
	maxNumber = 4
	maxDigits = 8
)

// sizes is the scope of expressions for the size of a frame.
var sizes = byteexpr.Scope{Of: "frame", Partial: true, Otherwise: "write a codec in Go"}

// build sets the length field or the expression of a kind.
func (c *Length) build(path string, k *kind, all *problems) {
	if c.Expr != "" {
		if (Length{Expr: c.Expr}) != *c {
			all.add(path+".expr", "computes the size of the frame; remove the other settings of length")
		}
		var wrong *exprerror.Error
		if k.expression, wrong = sizes.Compile(c.Expr, byteexpr.Number); wrong != nil {
			*all = append(*all, codec.InvalidAt(path+".expr", wrong.Source, wrong.Offset, "%s", wrong.Message))
		}
		return
	}
	l := &length{number: number{size: valueOf(c.Size), little: c.Little}, at: k.head, add: c.Add}
	if c.At != nil {
		l.at = *c.At
	}
	largest := maxNumber
	if c.ASCII {
		l.base, largest = 10, maxDigits
		if c.Little || c.Mask != nil {
			all.add(path+".ascii", "a text has neither little nor mask")
		}
	}
	switch {
	case l.number.size < 1 || l.number.size > largest:
		all.add(path+".size", "%d is not from 1 to %d", l.number.size, largest)
		return
	case l.at < len(k.starts):
		all.add(path+".at", "%d is inside the start, which has %d bytes", l.at, len(k.starts))
	}
	l.mask = l.largest()
	switch mask := uint64(valueOf(c.Mask)); {
	case c.ASCII:
		l.mask = math.MaxUint32
	case c.Mask == nil:
	case mask < 1 || mask > l.mask:
		all.add(path+".mask", "%#x is not from 1 to %#x", mask, l.mask)
	default:
		l.mask = mask
	}
	k.length = l
	if l.at == len(k.starts) {
		k.head += l.number.size
	}
}

// build sets the check of a kind and returns its size.
func (c *Check) build(path string, k *kind, all *problems) int {
	s, ok := checksum.Named[c.Type]
	if !ok {
		all.add(path+".type", "%q is not known; allowed: %s", c.Type, strings.Join(slices.Sorted(maps.Keys(checksum.Named)), ", "))
		return 0
	}
	check := &checker{of: s.Of, from: len(k.starts), number: number{size: s.Width, little: c.Little}, wrong: wrongClose}
	smallest, largest := s.Width, maxNumber
	if c.ASCII {
		check.number.base, check.number.size = 16, 2*s.Width
		smallest, largest = 2*s.Width, maxDigits
		if c.Little {
			all.add(path+".ascii", "a text has no little")
		}
	}
	if c.Size != nil {
		check.number.size = *c.Size
	}
	if check.number.size < smallest || check.number.size > largest {
		all.add(path+".size", "%d is not from %d to %d", check.number.size, smallest, largest)
	}
	if c.From != nil {
		check.from = *c.From
	}
	switch c.Wrong {
	case "", wrongClose:
	case wrongDrop, wrongAccept:
		check.wrong = c.Wrong
	default:
		all.add(path+".wrong", "%q is not close, drop or accept", c.Wrong)
	}
	k.check = check
	return check.number.size
}

// buildEscape builds the escapes of a kind.
func (c *Kind) buildEscape(path string, k *kind, all *problems) *escape {
	if len(k.ends) == 0 || c.Size != nil || c.Length != nil {
		all.add(path, "needs ends, and neither size nor length: those would count the bytes without escapes")
	}
	var e *escape
	for _, key := range slices.Sorted(maps.Keys(c.Escape)) {
		at := path + "." + key
		plain, pair := all.bytes(at, key), all.bytes(at, c.Escape[key])
		switch {
		case len(plain) != 1:
			all.add(at, "only single bytes can be escaped")
			continue
		case len(pair) != 2:
			all.add(at, "the replacement has %d bytes; expected: 2", len(pair))
			continue
		case e == nil:
			e = newEscape(pair[0])
		}
		switch {
		case pair[0] != e.first:
			all.add(at, `all replacements must begin with the same byte; others begin with \x%02x`, e.first)
		case e.plain[pair[1]] >= 0:
			all.add(at, `\x%02x has the same replacement`, e.plain[pair[1]])
		case slices.ContainsFunc(pair, func(b byte) bool { return bytes.IndexByte(k.ends, b) >= 0 }):
			all.add(at, "the replacement contains a byte of ends")
		}
		e.plain[pair[1]], e.second[plain[0]] = int16(plain[0]), int16(pair[1])
	}
	if e != nil && e.second[e.first] < 0 {
		all.add(path, `\x%02x begins the replacements, so it must be escaped, too`, e.first)
	}
	return e
}
