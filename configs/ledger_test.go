package configs

import (
	"fmt"
	"strings"
	"testing"
)

func TestWhatNeedsALedgerGetsOne(t *testing.T) {
	const file = `
%s
[transport.broker]
type = "amqp"
[transport.devices]
type = "tcp"
[pipeline.commands]
from = "broker:commands"
middleware = [%s]
on_error = "drop"
handler = { type = "deliver", devices = "devices", mode = "at-most-once" }
`
	sqlite := "[store]\ntype = \"sqlite\""
	for _, c := range []struct{ name, store, list, want string }{
		{"neither", "", "", "needs dedup in the pipeline's middleware"},
		{"no dedup", sqlite, "", "needs dedup in the pipeline's middleware"},
		{"in memory", "", `"dedup"`, "needs a store that outlives the process"},
		{"both", sqlite, `"dedup"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, _, err := Parse("c.toml", fmt.Appendf(nil, file, c.store, c.list), Options{})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "" && config.Store != Store{Type: "sqlite", Path: "pentrough.db"}:
				t.Errorf("store %+v", config.Store)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), `pipeline.commands.handler: mode = "at-most-once" `+c.want)):
				t.Errorf("error %v", err)
			}
		})
	}
}
