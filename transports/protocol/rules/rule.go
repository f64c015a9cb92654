package rules

import (
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/pentrough/pentrough/internal/pattern"
	"github.com/pentrough/pentrough/transports/protocol"
)

// The variables.
const (
	counter   = "n"
	ofDevice  = "device"
	ofUnit    = "unit"
	ofType    = "type"
	wholeText = "text"
)

// rule is a compiled [Rule]. A program is nil if the rule doesn't have it.
type rule struct {
	frameKind string
	match     *regexp.Regexp
	// groups is set if a group of match is used.
	groups bool
	when   *program

	device, unit, typ, answers, refuse, response *program
	raw, confirmed, noData                       bool
	// numbered is set if the response uses n.
	numbered bool
	// plain is set if what the frame means needs no input.
	plain bool
}

// fitsAll reports whether the rule has no conditions.
func (r *rule) fitsAll() bool { return r.frameKind == "" && r.match == nil && r.when == nil }

// bytesOf returns the variables of the bytes that functions read.
func bytesOf() map[string]value {
	return map[string]value{
		wholeText: textOf(func(in *input) error { in.pushBytes(in.data); return nil }),
		"size":    numberOf(func(in *input) (int, error) { return len(in.data), nil }),
	}
}

var (
	deviceName = textOf(func(in *input) error { in.pushText(in.device); return nil })
	unitName   = textOf(func(in *input) error { in.pushText(in.unit); return nil })
	nextNumber = value{kind: number, counter: true, number: func(in *input) (int, error) { return in.number, nil }}
)

// commandScope is the scope of the keys command and asks.
func commandScope(of string) *scope {
	s := &scope{of: of, variables: bytesOf()}
	s.variables["cmd"] = textOf(func(in *input) error { in.pushBytes(in.command); return nil })
	s.variables["id"] = textOf(func(in *input) error { in.pushText(in.id); return nil })
	s.variables[ofDevice], s.variables[ofUnit], s.variables[counter] = deviceName, unitName, nextNumber
	return s
}

// ruleScope is the scope of a rule whose regular expression has these groups.
func ruleScope(groups []string) *scope {
	s := &scope{of: "frame", variables: bytesOf(), absent: map[string]string{
		"cmd": "exists only in command and asks", "id": "exists only in command and asks",
		counter: "exists only in command, asks, respond and respond_raw",
	}}
	s.variables[ofDevice], s.variables[ofUnit] = deviceName, unitName
	for i, name := range groups {
		if name != "" {
			s.variables[name] = group(i)
		}
	}
	return s
}

// group returns the variable of a group. A group that takes no part in the match is empty.
func group(i int) value {
	return textOf(func(in *input) error {
		if from, to := in.match[2*i], in.match[2*i+1]; from >= 0 {
			in.pushBytes(in.data[from:to])
		}
		return nil
	})
}

// compileRule compiles a rule and returns all its problems.
func compileRule(field string, c *Rule) (*rule, []error) {
	r := &rule{frameKind: c.Kind, noData: !c.Data, confirmed: c.After != ""}
	var errs []error
	fail := func(key, format string, args ...any) {
		errs = append(errs, protocol.Invalid(field+"."+key, format, args...))
	}
	var groups []string
	if c.Match != "" {
		re, _, err := pattern.Compile(c.Match)
		if err != nil {
			fail("match", "%v", err)
			// Without its groups, the other expressions of the rule would be wrong, too.
			return r, errs
		}
		r.match, groups = re, re.SubexpNames()
		own := ruleScope(nil)
		for _, name := range groups {
			switch _, taken := own.variables[name]; {
			case name == "":
			case taken && name != ofDevice && name != ofUnit, own.absent[name] != "":
				fail("match", "a group can't be named %s, because expressions have a variable of that name", name)
			}
		}
	}
	s := ruleScope(groups)
	compile := func(key, source string, want kind, s *scope) *program {
		if source == "" {
			return nil
		}
		e, err := s.compile(source, want)
		if err != nil {
			errs = append(errs, invalid(field+"."+key, err))
			return nil
		}
		for name := range e.named {
			r.groups = r.groups || slices.Contains(groups, name)
		}
		return e
	}
	// meaning compiles an expression that a group of the same name can replace.
	meaning := func(key, source string) *program {
		if source == "" && slices.Contains(groups, key) {
			source = key
		}
		return compile(key, source, text, s)
	}
	r.when = compile("when", c.When, boolean, s)
	r.device, r.unit, r.typ = meaning(ofDevice, c.Device), meaning(ofUnit, c.Unit), meaning(ofType, c.Type)
	r.answers, r.refuse = compile("answers", c.Answers, text, s), compile("refuse", c.Refuse, text, s)

	responding := *s
	responding.variables, responding.absent = maps.Clone(s.variables), maps.Clone(s.absent)
	responding.variables[counter] = nextNumber
	delete(responding.absent, counter)
	key, source := "respond", c.Respond
	if r.raw = c.RespondRaw != ""; r.raw {
		key, source = "respond_raw", c.RespondRaw
		if c.Respond != "" {
			fail("respond_raw", "can't be used together with respond")
		}
	}
	r.response = compile(key, source, text, &responding)
	r.numbered = r.response != nil && r.response.named[counter]

	r.plain = r.device == nil && r.unit == nil && r.typ == nil && r.answers == nil && r.refuse == nil && r.response == nil

	switch {
	case c.After == "":
	case c.After != "confirmed":
		fail("after", "%q is not known; allowed: confirmed", c.After)
	case source == "":
		fail("after", "needs respond or respond_raw, which it delays")
	case c.Refuse != "":
		fail("after", "can't be used together with refuse, which closes the connection")
	case !c.Data:
		fail("after", "can't be used with data = false, because no pipeline gets the frame")
	}
	return r, errs
}

// quickFits reports whether the rule fits the frame, if that is known without an input.
func (r *rule) quickFits(frame []byte, frameKind string) (fits, known bool) {
	switch {
	case r.frameKind != "" && r.frameKind != frameKind:
		return false, true
	case r.match != nil:
		return false, false
	case r.when == nil:
		return true, true
	case r.when.test != nil && r.when.test.at < len(frame):
		return r.when.test.has(frame[r.when.test.at]), true
	}
	return false, false
}

// fits reports whether the rule fits the frame, and sets the groups of the input.
func (r *rule) fits(in *input, frameKind string) (bool, error) {
	if r.frameKind != "" && r.frameKind != frameKind {
		return false, nil
	}
	if r.match != nil {
		if !r.groups {
			if !r.match.Match(in.data) {
				return false, nil
			}
		} else if in.match = r.match.FindSubmatchIndex(in.data); in.match == nil {
			return false, nil
		}
	}
	if r.when == nil {
		return true, nil
	}
	fits, err := r.when.boolean(in)
	if err != nil {
		return false, fmt.Errorf("when: %w", err)
	}
	return fits, nil
}

// apply sets what the expressions of the rule say of the frame.
func (r *rule) apply(in *input, s *protocol.State, v *protocol.Verdict) (err error) {
	if r.device != nil {
		if v.Device, err = r.device.read(in, s.Device); err != nil {
			return fmt.Errorf("device: %w", err)
		}
		if v.Device != "" {
			in.device = v.Device
		}
	}
	if r.unit != nil {
		if v.Unit, err = r.unit.read(in, ""); err != nil {
			return fmt.Errorf("unit: %w", err)
		}
		in.unit = v.Unit
	}
	if r.typ != nil {
		if v.Kind, err = r.typ.read(in, ""); err != nil {
			return fmt.Errorf("type: %w", err)
		}
	}
	if r.answers != nil {
		v.Answers = protocol.Yes
		if v.Key, err = r.answers.read(in, ""); err != nil {
			return fmt.Errorf("answers: %w", err)
		}
	}
	if r.refuse != nil {
		if v.Refusal, err = r.refuse.read(in, ""); err != nil {
			return fmt.Errorf("refuse: %w", err)
		}
	}
	if r.response == nil {
		return nil
	}
	if r.numbered {
		in.number = nextNumberOf(s)
	}
	if v.Response, err = r.response.appendTo(in, nil); err != nil {
		return fmt.Errorf("response: %w", err)
	}
	v.Raw, v.Confirmed = r.raw, r.confirmed
	return nil
}

// nextNumberOf counts what the host sends. The number has 16 bits, as in most protocols.
func nextNumberOf(s *protocol.State) int {
	s.Number++
	return int(s.Number & 0xffff)
}

// read runs a program of type text. It returns known if the result is the same text, which saves
// an allocation.
func (p *program) read(in *input, known string) (string, error) {
	if p.constant {
		return p.s, nil
	}
	mark := len(in.stack)
	if err := p.text(in); err != nil {
		return "", err
	}
	top := in.pop(mark)
	if string(top) == known {
		return known, nil
	}
	return string(top), nil
}

// appendTo runs a program of type text and appends the result to dst.
func (p *program) appendTo(in *input, dst []byte) ([]byte, error) {
	mark := len(in.stack)
	if err := p.text(in); err != nil {
		return dst, err
	}
	return append(dst, in.pop(mark)...), nil
}
