package configs

import (
	"regexp"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports/protocol"
)

// BuildProtocol builds a ready-made protocol with the registered plugins.
func BuildProtocol(t *testing.T, name string) protocol.Protocol {
	t.Helper()
	return build(t, name, readyMade())
}

func build(t *testing.T, name string, tables map[string]map[string]any) protocol.Protocol {
	t.Helper()
	d := plugin.Decoder{Set: plugin.Registered(), ReadyMade: tables}
	inst, ok := d.Plugin("protocol", "protocol", name)
	if !ok || len(d.Problems) > 0 {
		t.Fatalf("%+v", d.Problems)
	}
	p, err := inst.Config.(protocol.Config).Protocol()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Each file has one protocol of its own name, and says what devices have it and where the format
// is from.
func TestReadyMadeProtocols(t *testing.T) {
	table := regexp.MustCompile(`(?m)^\[(.*)\]$`)
	tables := readyMade()["protocol"]
	for _, p := range Protocols() {
		found := table.FindAllStringSubmatch(p.Text, -1)
		if len(found) != 1 || found[0][1] != "protocol."+p.Name || tables[p.Name] == nil {
			t.Errorf("%s has the tables %q", p.Name, found)
		}
		if len(p.Devices) < 20 || strings.Contains(p.Devices, "\n") || !strings.Contains(strings.ReplaceAll(p.Text, "\n#", ""), "From the ") {
			t.Errorf("%s: %q", p.Name, p.Devices)
		}
		if k, _ := plugin.Registered().Kind("protocol"); k != nil {
			if _, taken := k.Lookup(p.Name); taken {
				t.Errorf("%s is also a plugin", p.Name)
			}
		}
	}
}
