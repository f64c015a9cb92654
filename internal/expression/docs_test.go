package expression

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/pattern"
)

var firstCell = regexp.MustCompile("(?m)^\\| `(.+?)` \\|")

// The examples of the page compile. Its names and limits are those of the code.
func TestThePage(t *testing.T) {
	data, err := os.ReadFile("../../docs/expressions.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	_, said, ok := strings.Cut(page, "## What an expression can do")
	examples := firstCell.FindAllStringSubmatch(said, -1)
	if !ok || len(examples) < 15 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, e := range examples {
		source := strings.ReplaceAll(e[1], `\|`, "|")
		if _, err := environment().Compile(source, Body); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
	for name := range variables {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("the page says nothing of %s", name)
		}
	}
	for name := range functions {
		if !strings.Contains(said, name) {
			t.Errorf("the page says nothing of the function %s", name)
		}
	}
	if DefaultLimits != (Limits{Steps: 1_000_000, Elements: 1_000_000, Bytes: 64 << 20, Values: 256 << 20, Payload: 16 << 20, Time: 2e9}) || maxSource != 16<<10 || maxNodes != 2000 || jsontext.MaxDepth != 500 ||
		bytesPerStep != 256 || elementsPerStep != 4 || matchedPerStep != 64 || pattern.MaxSize != 3000 {
		t.Error("the page has other bounds")
	}
}
