package configs

import (
	"fmt"
	"strings"
	"testing"
)

func TestWhatNeedsAStoreGetsOne(t *testing.T) {
	const file = `
%s
[transport.broker]
type = "amqp"
[pipeline.dead]
from = "broker:commands.poison"
on_error = "drop"
handler = "store"
`
	for store, want := range map[string]string{
		"":                           `pipeline.dead.handler: the handler "store" needs a store that outlives the process; allowed: [store] type = "sqlite" or "postgres"`,
		"[store]\ntype = \"sqlite\"": "",
		"[store]\ntype = \"postgres\"\nurl = \"postgres://db/x\"": "",
	} {
		_, _, err := Parse("c.toml", fmt.Appendf(nil, file, store), Options{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", store, err)
		}
	}
}

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
