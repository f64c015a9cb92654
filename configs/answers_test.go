package configs

import (
	"fmt"
	"strings"
	"testing"

	_ "github.com/pentrough/pentrough/transports/codec/line"
	_ "github.com/pentrough/pentrough/transports/protocol/rules"
)

// Either the protocol or the handler says which frames are answers.
func TestOnlyOneNamesTheAnswers(t *testing.T) {
	const file = `
[protocol.locks]
type    = "rules"
framing = "line"
asks    = "at(0, 1)"
rules   = [{ when = 'u8(0) == 0x2e', data = false }, { match = "^ok", %s }, {}]
[transport.locks]
type = "tcp"
protocol = "locks"
[transport.web]
type = "http"
[pipeline.commands]
from = "web:/commands"
handler = { type = "deliver", devices = "locks", answer = { %s } }
`
	const names = `answers = "at(3, 1)"`
	const refused = "transport.locks already says which frames are answers (protocol, rules[1].answers)"
	for _, c := range []struct{ rule, answer, want string }{
		{names, `match = "x"`, "c.toml:14:61: pipeline.commands.handler.answer.match: " + refused},
		{names, `command = "(x)", frame = "(y)"`, "c.toml:14:61: pipeline.commands.handler.answer.command: " + refused},
		{names, `max_open = 3`, ""},
	} {
		_, _, err := Parse("c.toml", fmt.Appendf(nil, file, c.rule, c.answer), Options{})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.answer, err)
		}
	}
	unkeyed := strings.Replace(file, `asks    = "at(0, 1)"`, "", 1)
	if _, _, err := Parse("c.toml", fmt.Appendf(nil, unkeyed, `type = "'a'"`, `match = "x"`), Options{}); err != nil {
		t.Error(err)
	}
}
