package walls

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/pentrough/pentrough"

// bubblePackage is the only package of the program that may import testing, for virtual time
// (decision 0023).
const bubblePackage = "internal/bubble"

// goPackage is a package as `go list -json` describes it.
type goPackage struct {
	Dir          string
	ImportPath   string
	Name         string
	Export       string
	Standard     bool
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// pathInModule returns the package's path inside the module.
func (p goPackage) pathInModule() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// packages returns the module's packages and everything that they import.
func packages(t *testing.T) []goPackage {
	t.Helper()
	all, err := goList()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ownPackages returns the module's packages in and below a folder, "" for all.
func ownPackages(t *testing.T, folder string) []goPackage {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(packages(t)), func(p goPackage) bool {
		return !strings.HasPrefix(p.ImportPath, module+"/") || folder != "" && !isWithin(p.pathInModule(), folder)
	})
}

// goList runs `go list -json` in the module's root. That compiles all packages, with the race
// detector if these tests have it: then most are compiled already.
var goList = sync.OnceValues(func() (pkgs []goPackage, err error) {
	args := []string{"list", "-json", "-export", "-deps"}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./...")...)
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %v: %w\n%s", args, err, stderr.Bytes())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading go list's answer: %w", err)
		}
		pkgs = append(pkgs, p)
	}
})

// importsOfModule returns the imports that are in this module, as paths inside it.
func importsOfModule(imports []string) []string {
	var in []string
	for _, i := range imports {
		if rest, ok := strings.CutPrefix(i, module+"/"); ok {
			in = append(in, rest)
		}
	}
	return in
}

func TestImportsRunOneWay(t *testing.T) {
	pkgs := ownPackages(t, "")
	if len(pkgs) < len(contracts) {
		t.Fatalf("go list found %d packages", len(pkgs))
	}
	for _, p := range pkgs {
		for _, to := range importsOfModule(p.Imports) {
			if why := forbiddenReason(p.pathInModule(), to); why != "" {
				t.Error(why)
			}
		}
		if slices.Contains(p.Imports, "testing") {
			if r, _, _ := roomOf(p.pathInModule()); r != suite && r != testInner && p.pathInModule() != bubblePackage {
				t.Errorf("%s imports testing outside of its tests", p.pathInModule())
			}
		}
	}
}

// Most tests may import suites, the test environment and what is above them. The tests of a plugin
// show what a plugin author can do, so they import contracts, suites and the test environment.
func TestLeavesAreTestedWithoutAHost(t *testing.T) {
	for _, p := range ownPackages(t, "") {
		from := p.pathInModule()
		r, folder, _ := roomOf(from)
		if r != leaf {
			continue
		}
		for _, to := range importsOfModule(append(p.TestImports, p.XTestImports...)) {
			switch toRoom, toFolder, _ := roomOf(to); toRoom {
			case contract, suite, testInner, shared, base:
			case leaf:
				if toFolder != folder && !strings.HasPrefix(toFolder, "transports/codec/") {
					t.Errorf("a test of %s imports the leaf %s", from, to)
				}
			default:
				t.Errorf("a test of %s imports %s", from, to)
			}
		}
	}
}

func TestWrongImportsAreSeen(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{"transports/amqp", "transports/tcp"},
		{"transports/amqp", "handlers"},
		{"transports/tcp", "transports/codec/line"},
		{"transports/device", "router"},
		{"handlers/deliver", "handlers/command"},
		{"handlers/deliver", "internal/plugin"},
		{"internal/outage", "handlers"},
		{"handlers", "handlers/deliver"},
		{"handlers/deliver", "router/middleware"},
		{"router", "transports/amqp"},
		{"router", "configs"},
		{"router/middleware/retry", "router"},
		{"configs", "handlers/deliver"},
		{"internal/plugin", "handlers"},
		{"internal/admin", "handlers/deliver"},
		{"cmd/pentrough", "handlers/handlertest"},
		{"cmd/pentrough", "internal/testenv"},
		{"cmd/devsim", "router"},
		{"handlers/serve", "handlers/deliver"},
		{"handlers/serve", "configs"},
		{"cmd/pentrough", "handlers/serve"},
		{"handlers/deliver", "handlers/serve"},
		{"pkg/util", "handlers"},
	} {
		if forbiddenReason(c.from, c.to) == "" {
			t.Errorf("%s may import %s", c.from, c.to)
		}
	}
	for _, c := range []struct{ from, to string }{
		{"transports/amqp", "transports"},
		{"transports/tcp", "transports/device"},
		{"handlers/deliver", "handlers"},
		{"handlers/handlertest", "handlers"},
		{"handlers", "internal/outage"},
		{"transports/amqp", "internal/outage"},
		{"router", "internal/backoff"},
		{"handlers/serve", "internal/plugin"},
		{"router", "router/middleware"},
		{"router/middleware", "handlers"},
		{"cmd/pentrough", "handlers/deliver"},
		{"transports/codec", "internal/plugin"},
		{"configs", "internal/database"},
	} {
		if why := forbiddenReason(c.from, c.to); why != "" {
			t.Error(why)
		}
	}
}

// Only one file of the program imports plugins, so a build with other plugins replaces one file.
func TestPluginsAreNamedInOneFile(t *testing.T) {
	for _, p := range ownPackages(t, "cmd") {
		for _, file := range p.GoFiles {
			f := parseImports(t, filepath.Join(p.Dir, file))
			for _, i := range f {
				r, _, _ := roomOf(strings.TrimPrefix(i.path, module+"/"))
				named := p.pathInModule() == "cmd/pentrough" && file == "plugins.go"
				switch {
				case strings.HasPrefix(i.path, module) && r == leaf && !named:
					t.Errorf("%s/%s imports the leaf %s", p.pathInModule(), file, i.path)
				case i.blank && !named:
					t.Errorf("%s/%s has a blank import, of %s", p.pathInModule(), file, i.path)
				case named && !i.blank:
					t.Errorf("%s/%s imports %s for its names", p.pathInModule(), file, i.path)
				}
			}
		}
	}
}
