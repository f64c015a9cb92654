package configs

import (
	"fmt"
	"strings"
	"testing"

	_ "github.com/pentrough/pentrough/transports/codec/line"
	_ "github.com/pentrough/pentrough/transports/tcp"
)

func TestConnectionsShareTheOpenFiles(t *testing.T) {
	const listeners = `
[transport.devices]
type = "tcp"
%s
[transport.web]
type = "http"
[transport.memory]
type = "memory"
[pipeline.p]
from = "memory:a"
handler = { type = "log" }
`
	for _, c := range []struct {
		openFiles       int
		setting, shares string
		warnings        []string
	}{
		{0, "max_connections = 30000", "devices 0 memory 0 web 0", nil},
		{20000, "", "devices 17744 memory 0 web 2000", nil},
		{20000, "max_connections = 10000", "devices 10000 memory 0 web 2000", nil},
		{20000, "max_connections = 30000", "devices 17744 memory 0 web 2000", []string{
			"transport.devices.max_connections: only 17744 of 30000 connections are possible: this process may open 20000 files, the host itself needs 256 of them",
		}},
		{1000, "", "devices 372 memory 0 web 372", []string{"transport.web.max_connections: only 372 of 2000 connections"}},
	} {
		config, warnings, err := Parse("c.toml", fmt.Appendf(nil, listeners, c.setting), Options{OpenFiles: c.openFiles})
		if err != nil {
			t.Fatal(err)
		}
		var shares []string
		for _, transport := range config.Router.Transports {
			shares = append(shares, fmt.Sprint(transport.Name, " ", transport.Connections))
		}
		if got := strings.Join(shares, " "); got != c.shares {
			t.Errorf("%d open files, %s: %s, want %s", c.openFiles, c.setting, got, c.shares)
		}
		var about []string
		for _, w := range warnings {
			if strings.Contains(w.String(), "max_connections") {
				about = append(about, w.String())
			}
		}
		if len(about) != len(c.warnings) {
			t.Errorf("%d open files, %s: %q", c.openFiles, c.setting, about)
			continue
		}
		for i, want := range c.warnings {
			if !strings.Contains(about[i], want) {
				t.Errorf("got %q, want %q", about[i], want)
			}
		}
	}
}
