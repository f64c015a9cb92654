package chaos

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the tests got into their golden files")

func TestReport(t *testing.T) {
	broken := incidentHistory()
	removeRead(broken, "b/3")
	broken.End.Online = append(broken.End.Online, "a")
	addRead(broken, "b/5", time.Second)
	for i := range stories + 2 {
		broken.End.Poison = append(broken.End.Poison, fmt.Sprint("p", i))
	}
	for name, h := range map[string]*History{"testdata/good.txt": incidentHistory(), "testdata/fleet.txt": fleetHistory(), "testdata/hosts.txt": hostsHistory(), "testdata/broken.txt": broken} {
		t.Run(name, func(t *testing.T) {
			r := NewReport(h)
			if all := len(Judge(h)); r.CountViolations() != all {
				t.Errorf("%d violations, want %d", r.CountViolations(), all)
			}
			var text strings.Builder
			if err := r.Text(&text); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(name, []byte(text.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text.String()); diff != "" {
				t.Errorf("the text (-want +got):\n%s", diff)
			}

			kept, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			var again Report
			if err := json.Unmarshal(kept, &again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, &again); diff != "" {
				t.Errorf("as JSON (-before +after):\n%s", diff)
			}
		})
	}
}
