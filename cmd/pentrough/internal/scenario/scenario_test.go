package scenario_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pentrough/pentrough/cmd/pentrough/internal/scenario"
	"github.com/pentrough/pentrough/configs"
	_ "github.com/pentrough/pentrough/handlers/command"
	_ "github.com/pentrough/pentrough/handlers/deliver"
	_ "github.com/pentrough/pentrough/handlers/fanout"
	_ "github.com/pentrough/pentrough/handlers/httprequest"
	_ "github.com/pentrough/pentrough/handlers/log"
	_ "github.com/pentrough/pentrough/handlers/passthrough"
	_ "github.com/pentrough/pentrough/handlers/sql"
	_ "github.com/pentrough/pentrough/handlers/store"
	_ "github.com/pentrough/pentrough/handlers/tally"
	"github.com/pentrough/pentrough/internal/bubble"
	"github.com/pentrough/pentrough/internal/inventory"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/router"
	_ "github.com/pentrough/pentrough/router/middleware/circuitbreaker"
	_ "github.com/pentrough/pentrough/router/middleware/dedup"
	_ "github.com/pentrough/pentrough/router/middleware/poison"
	_ "github.com/pentrough/pentrough/router/middleware/ratelimit"
	_ "github.com/pentrough/pentrough/router/middleware/retry"
	_ "github.com/pentrough/pentrough/router/middleware/throttle"
	_ "github.com/pentrough/pentrough/router/middleware/timeout"
	_ "github.com/pentrough/pentrough/transports/amqp"
	_ "github.com/pentrough/pentrough/transports/codec/length"
	_ "github.com/pentrough/pentrough/transports/codec/line"
	_ "github.com/pentrough/pentrough/transports/http"
	_ "github.com/pentrough/pentrough/transports/memory"
	_ "github.com/pentrough/pentrough/transports/protocol/rules"
	_ "github.com/pentrough/pentrough/transports/schedule"
	_ "github.com/pentrough/pentrough/transports/tcp"
)

func TestMain(m *testing.M) { await.Main(m) }

var update = flag.Bool("update", false, "write the results that are there")

// TestScenarios runs every testdata/*.txtar: a configuration with its tests, and how each has to
// end.
func TestScenarios(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no scenarios: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			setup := scenario.Setup{In: bubble.Under(t), Timeout: await.Patience, Level: slog.LevelError}
			setup.Config, _, err = configs.Parse("c.toml", archive.Files[0].Data, configs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range archive.Files[1 : len(archive.Files)-1] {
				list, err := configs.ParseInventory(f.Name, f.Data)
				if err != nil {
					t.Fatal(err)
				}
				setup.Inventory = func(log *slog.Logger) (router.Inventory, error) {
					return inventory.Open(path, func(string) (inventory.List, error) { return list, nil }, log)
				}
			}
			var got strings.Builder
			for i := range setup.Config.Tests {
				r := scenario.Run(&setup.Config.Tests[i], setup)
				fmt.Fprintf(&got, "%s: ", r.Test.Name)
				if r.Failure == nil {
					got.WriteString("ok\n")
					continue
				}
				fmt.Fprintf(&got, "%d: step %d: %s\n%s", r.Failure.Place.Line, r.Failure.Step, r.Failure.Message, r.Log)
				got.WriteByte('\n')
			}
			results := &archive.Files[len(archive.Files)-1]
			if results.Name != "results" {
				t.Fatalf("the last file of %s is %q, not results", path, results.Name)
			}
			if *update {
				results.Data = []byte(got.String())
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(results.Data), got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
