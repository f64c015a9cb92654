package rules

import (
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/pentrough/pentrough/internal/byteexpr"
	"github.com/pentrough/pentrough/internal/exprerror"
	"github.com/pentrough/pentrough/internal/pattern"
	"github.com/pentrough/pentrough/transports/protocol"
)

// The variables.
const (
	counter   = "n"
	ofDevice  = "device"
	ofUnit    = "unit"
	ofType    = "type"
	ofToken   = "token"
	wholeText = "text"
)

// rule is a compiled [Rule]. A program is nil if the rule doesn't have it.
type rule struct {
	frameKind string
	match     *regexp.Regexp
	// groups is set if a group of match is used.
	groups bool
	when   *byteexpr.Program

	device, unit, token, typ, answers, refuse, response *byteexpr.Program
	raw, confirmed, noData                              bool
	// numbered is set if the response uses n.
	numbered bool
	// plain is set if the rule has no expressions for the verdict.
	plain bool
}

// fitsAll reports whether the rule has no conditions.
func (r *rule) fitsAll() bool { return r.frameKind == "" && r.match == nil && r.when == nil }

// bytesOf returns the variables of the bytes that functions read.
func bytesOf() map[string]byteexpr.Value {
	return map[string]byteexpr.Value{
		wholeText: byteexpr.TextOf(func(in byteexpr.Input) error { in.PushBytes(in.Data); return nil }),
		"size":    byteexpr.NumberOf(func(in byteexpr.Input) (int, error) { return len(in.Data), nil }),
	}
}

var (
	deviceName = byteexpr.TextOf(func(in byteexpr.Input) error { in.PushText(in.Device); return nil })
	unitName   = byteexpr.TextOf(func(in byteexpr.Input) error { in.PushText(in.Unit); return nil })
)

// commandScope is the scope of the keys command and asks.
func commandScope(of string) *byteexpr.Scope {
	s := &byteexpr.Scope{Of: of, Variables: bytesOf(), Otherwise: otherwise}
	s.Variables["cmd"] = byteexpr.TextOf(func(in byteexpr.Input) error { in.PushBytes(in.Command); return nil })
	s.Variables["id"] = byteexpr.TextOf(func(in byteexpr.Input) error { in.PushText(in.ID); return nil })
	s.Variables[ofDevice], s.Variables[ofUnit], s.Variables[counter] = deviceName, unitName, byteexpr.Counter
	return s
}

// ruleScope is the scope of a rule whose regular expression has these groups.
func ruleScope(groups []string) *byteexpr.Scope {
	s := &byteexpr.Scope{Of: "frame", Variables: bytesOf(), Otherwise: otherwise, Absent: map[string]string{
		"cmd": "exists only in command and asks", "id": "exists only in command and asks",
		counter: "exists only in command, asks, respond and respond_raw",
	}}
	s.Variables[ofDevice], s.Variables[ofUnit] = deviceName, unitName
	for i, name := range groups {
		if name != "" {
			s.Variables[name] = group(i)
		}
	}
	return s
}

// group returns the variable of a group. The variable of a group that has matched nothing is
// empty.
func group(i int) byteexpr.Value {
	return byteexpr.TextOf(func(in byteexpr.Input) error {
		if from, to := in.Match[2*i], in.Match[2*i+1]; from >= 0 {
			in.PushBytes(in.Data[from:to])
		}
		return nil
	})
}

// otherwise says what to use if the language lacks something.
const otherwise = "use groups of match, or write a protocol in Go"

// invalid returns the error of a Validate method for a field with a wrong expression.
func invalid(field string, e *exprerror.Error) error {
	return protocol.InvalidAt(field, e.Source, e.Offset, "%s", e.Message)
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
			switch _, taken := own.Variables[name]; {
			case name == "":
			case taken && name != ofDevice && name != ofUnit, own.Absent[name] != "":
				fail("match", "a group can't be named %s, because expressions have a variable of that name", name)
			}
		}
	}
	s := ruleScope(groups)
	compile := func(key, source string, want byteexpr.Kind, s *byteexpr.Scope) *byteexpr.Program {
		if source == "" {
			return nil
		}
		e, wrong := s.Compile(source, want)
		if wrong != nil {
			errs = append(errs, invalid(field+"."+key, wrong))
			return nil
		}
		for name := range e.Named {
			r.groups = r.groups || slices.Contains(groups, name)
		}
		return e
	}
	// meaning compiles an expression that a group of the same name can replace.
	meaning := func(key, source string) *byteexpr.Program {
		if source == "" && slices.Contains(groups, key) {
			source = key
		}
		return compile(key, source, byteexpr.Text, s)
	}
	r.when = compile("when", c.When, byteexpr.Boolean, s)
	r.device, r.unit, r.typ = meaning(ofDevice, c.Device), meaning(ofUnit, c.Unit), meaning(ofType, c.Type)
	r.token = meaning(ofToken, c.Token)
	r.answers, r.refuse = compile("answers", c.Answers, byteexpr.Text, s), compile("refuse", c.Refuse, byteexpr.Text, s)

	responding := *s
	responding.Variables, responding.Absent = maps.Clone(s.Variables), maps.Clone(s.Absent)
	responding.Variables[counter] = byteexpr.Counter
	delete(responding.Absent, counter)
	key, source := "respond", c.Respond
	if r.raw = c.RespondRaw != ""; r.raw {
		key, source = "respond_raw", c.RespondRaw
		if c.Respond != "" {
			fail("respond_raw", "can't be used together with respond")
		}
	}
	r.response = compile(key, source, byteexpr.Text, &responding)
	r.numbered = r.response != nil && r.response.Named[counter]

	r.plain = r.device == nil && r.unit == nil && r.token == nil && r.typ == nil && r.answers == nil && r.refuse == nil && r.response == nil

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

// quickFits reports whether the rule fits the frame. known is false if that needs an input.
func (r *rule) quickFits(frame []byte, frameKind string) (fits, known bool) {
	switch {
	case r.frameKind != "" && r.frameKind != frameKind:
		return false, true
	case r.match != nil:
		return false, false
	case r.when == nil:
		return true, true
	case r.when.Test != nil && r.when.Test.At < len(frame):
		return r.when.Test.Has(frame[r.when.Test.At]), true
	}
	return false, false
}

// fits reports whether the rule fits the frame, and sets the groups of the input.
func (r *rule) fits(in byteexpr.Input, frameKind string) (bool, error) {
	if r.frameKind != "" && r.frameKind != frameKind {
		return false, nil
	}
	if r.match != nil {
		if !r.groups {
			if !r.match.Match(in.Data) {
				return false, nil
			}
		} else if in.Match = r.match.FindSubmatchIndex(in.Data); in.Match == nil {
			return false, nil
		}
	}
	if r.when == nil {
		return true, nil
	}
	fits, err := r.when.Holds(in)
	if err != nil {
		return false, fmt.Errorf("when: %w", err)
	}
	return fits, nil
}

// apply sets what the expressions of the rule say of the frame.
func (r *rule) apply(in byteexpr.Input, s *protocol.State, v *protocol.Verdict) (err error) {
	if r.device != nil {
		if v.Device, err = r.device.Read(in, s.Device); err != nil {
			return fmt.Errorf("device: %w", err)
		}
		if v.Device != "" {
			in.Device = v.Device
		}
	}
	if r.unit != nil {
		if v.Unit, err = r.unit.Read(in, ""); err != nil {
			return fmt.Errorf("unit: %w", err)
		}
		in.Unit = v.Unit
	}
	if r.token != nil {
		token, err := r.token.Append(in, nil)
		if err != nil {
			return fmt.Errorf("token: %w", err)
		}
		v.Token = token
	}
	if r.typ != nil {
		if v.Kind, err = r.typ.Read(in, ""); err != nil {
			return fmt.Errorf("type: %w", err)
		}
	}
	if r.answers != nil {
		v.Answers = protocol.Yes
		if v.Key, err = r.answers.Read(in, ""); err != nil {
			return fmt.Errorf("answers: %w", err)
		}
	}
	if r.refuse != nil {
		if v.Refusal, err = r.refuse.Read(in, ""); err != nil {
			return fmt.Errorf("refuse: %w", err)
		}
	}
	if r.response == nil {
		return nil
	}
	if r.numbered {
		in.Number = nextNumberOf(s)
	}
	if v.Response, err = r.response.Append(in, nil); err != nil {
		return fmt.Errorf("response: %w", err)
	}
	v.Raw, v.Confirmed = r.raw, r.confirmed
	return nil
}

// nextNumberOf returns the number of the next frame that the host sends. The number has 16 bits,
// as in most protocols.
func nextNumberOf(s *protocol.State) int {
	s.Number++
	return int(s.Number & 0xffff)
}
