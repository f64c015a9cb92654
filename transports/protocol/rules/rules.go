// Package rules is the protocol that a configuration file describes with ordered rules.
//
//	[protocol.gps103]
//	type    = "rules"
//	framing = { type = "delimiter", delimiter = ";" }
//	command = '"**,imei:" + device + "," + cmd'
//	rules   = [
//	  { match = '##,imei:(?P<device>\d{15}),A', respond_raw = '"LOAD"', data = false },
//	  { match = '^\s*(?P<device>\d{15})$', respond_raw = '"ON"', data = false },
//	  { match = '^\s*imei:(?P<device>\d{15}),(?P<type>[^,]*)' },
//	]
//
// The first rule that fits a frame says what the frame means. Rules have no state, loops or
// timers. A protocol that needs them is written in Go.
package rules

import (
	_ "embed"
	"errors"
	"fmt"

	"github.com/pentrough/pentrough/internal/byteexpr"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/protocol"
)

//go:embed rules.md
var description string

func init() {
	protocol.Register(protocol.Plugin{
		Name:        "rules",
		Summary:     "A protocol that the configuration describes with rules.",
		Description: description,
		Config:      func() protocol.Config { return &Config{} },
	})
}

// Config is the configuration of rules.
type Config struct {
	Framing codec.Config `toml:"framing" required:"true" doc:"How the byte stream is cut into frames: a codec." example:"{ type = \"delimiter\", delimiter = \";\" }"`
	Command string       `toml:"command" doc:"The payload of a command: an expression that gives text. Default: the command itself." example:"'\"**,imei:\" + device + \",\" + cmd'"`
	Asks    string       `toml:"asks" doc:"The key of a command's answer: an expression that gives text. Its functions read the payload that the expression in command gives. A frame answers the command if its rule has answers and gives the same key. Default: answers have no key." example:"'hex(0, 2)'"`
	Rules   []Rule       `toml:"rules" required:"true" min:"1" doc:"What frames mean. The first rule that fits a frame counts. If no rule fits, the connection ends; a last rule {} fits all frames." example:"[{ match = '^(?P<device>\\d{15})', respond = '\"ON\"', data = false }, {}]"`
}

// Rule says what some frames mean.
type Rule struct {
	Kind  string `toml:"kind" doc:"Condition: the kind of the frame, as the codec names it." example:"\"login\""`
	Match string `toml:"match" doc:"Condition: a regular expression that the frame matches. In the other expressions of the rule, its named groups are variables. A group named device, unit, token or type sets the key of the same name, unless the rule has that key." example:"'^(?P<device>\\d{15}),'"`
	When  string `toml:"when" doc:"Condition: an expression that gives true or false." example:"'u8(0) == 0x01'"`

	Device  string `toml:"device" doc:"The name of the device that sent the frame: an expression that gives text. Default: the frame doesn't name its device." example:"'bcd(1, 8)[1:]'"`
	Unit    string `toml:"unit" doc:"The part of the device that the frame is from, such as a meter behind a modem: an expression that gives text." example:"'string(u8(0))'"`
	Token   string `toml:"token" doc:"The secret with which the device proves its name, if the transport has auth: an expression that gives text. The host overwrites the token in the frame before it publishes it. The token must stand in the frame as it is; otherwise the frame isn't published." example:"'text[9:]'"`
	Type    string `toml:"type" doc:"The type of the frame: an expression that gives text. The data message of the frame has this text in its field kind." example:"'\"position\"'"`
	Answers string `toml:"answers" doc:"The key of an answer: an expression that gives text. The frame answers the command for which asks gives the same text." example:"'hex(0, 2)'"`

	Respond    string `toml:"respond" doc:"What the host writes to the device because of the frame: an expression that gives text. The codec makes a frame of it." example:"'at(0, 1) + w16(n)'"`
	RespondRaw string `toml:"respond_raw" doc:"Like respond, but the host writes the text as it is." example:"'\"LOAD\"'"`
	Refuse     string `toml:"refuse" doc:"Why the device isn't accepted: an expression that gives text. Unless the text is empty, the host writes the response and closes the connection." example:"'\"unknown device\"'"`
	After      string `toml:"after" doc:"When the host writes the response. confirmed: when all pipelines that consume data have settled the frame. Default: at once." enum:"confirmed" example:"\"confirmed\""`
	Data       bool   `toml:"data" doc:"Whether the frame is published as data. A frame that answers a waiting command isn't published. With data = false and without answers, the frame only says that the device is alive, and answers no command."`
}

// SetDefaults sets the defaults of a rule.
func (r *Rule) SetDefaults() { r.Data = true }

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	_, err := c.compile()
	return err
}

// NamesAnswers implements protocol.AnswerNamer.
func (c *Config) NamesAnswers() string {
	for i, r := range c.Rules {
		if r.Answers != "" {
			return fmt.Sprintf("rules[%d].answers", i)
		}
	}
	return ""
}

// Protocol builds the protocol.
func (c *Config) Protocol() (protocol.Protocol, error) {
	p, err := c.compile()
	if err != nil {
		return nil, err
	}
	return p, nil
}

// compile compiles the configuration. It returns all problems, joined.
func (c *Config) compile() (*rules, error) {
	p := &rules{}
	var errs []error
	if c.Framing == nil {
		errs = append(errs, protocol.Invalid("framing", "is missing; it names a codec"))
	} else if f, err := c.Framing.New(); err == nil {
		p.framing = f
		p.kinds, _ = f.(codec.Kinds)
		p.limit = 2*f.Max() + byteexpr.MaxSource // hex doubles a frame
	} else {
		errs = append(errs, protocol.Invalid("framing", "%v", err))
	}
	compile := func(field, source string, s *byteexpr.Scope) *byteexpr.Program {
		if source == "" {
			return nil
		}
		e, wrong := s.Compile(source, byteexpr.Text)
		if wrong != nil {
			errs = append(errs, invalid(field, wrong))
		}
		return e
	}
	p.command = compile("command", c.Command, commandScope("command"))
	p.asks = compile("asks", c.Asks, commandScope("payload"))
	for _, e := range []*byteexpr.Program{p.command, p.asks} {
		p.numbered = p.numbered || e != nil && e.Named[counter]
		p.units = p.units || e != nil && e.Named[ofUnit]
	}
	if len(c.Rules) == 0 {
		errs = append(errs, protocol.Invalid("rules", "is missing; [{}] makes data of every frame"))
	}
	answers, all := false, -1 // all is the first rule that fits every frame
	for i := range c.Rules {
		field := fmt.Sprintf("rules[%d]", i)
		r, problems := compileRule(field, &c.Rules[i])
		errs = append(errs, problems...)
		if r.frameKind != "" && p.framing != nil && p.kinds == nil {
			errs = append(errs, protocol.Invalid(field+".kind", "the codec of framing has no kinds of frames"))
		}
		if c.Rules[i].Answers != "" {
			answers = true
			if c.Asks == "" && r.answers != nil && !r.answers.IsEmpty() {
				errs = append(errs, protocol.Invalid(field+".answers", `needs asks, which gives the key of a command's answer; for answers without a key, write answers = '""'`))
			}
		}
		if all < 0 && r.fitsAll() {
			all = i
		}
		p.rules = append(p.rules, r)
		p.units = p.units || r.unit != nil
	}
	if c.Asks != "" && !answers && len(c.Rules) > 0 {
		errs = append(errs, protocol.Invalid("asks", "no rule has answers, so no command would get its answer"))
	}
	// A rule whose condition has an error seems to fit every frame. So this check needs a
	// configuration without errors.
	if last := len(c.Rules) - 1; len(errs) == 0 && all >= 0 && all < last {
		errs = append(errs, protocol.Invalid(fmt.Sprintf("rules[%d]", all+1), "is never used, because rules[%d] fits every frame", all))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	// Without asks, commands have no key, so a frame with the verdict Maybe could answer one.
	p.listed = answers && c.Asks == ""
	return p, nil
}
