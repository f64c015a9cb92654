// Package endtoend runs whole hosts, as users do, among fleets of devices, back ends, brokers
// and databases, and kills all of them.
package endtoend

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// programFolder is where the programs of these tests are built.
var programFolder string

func TestMain(m *testing.M) {
	var err error
	if programFolder, err = os.MkdirTemp("", "pentrough-programs-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(programFolder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var (
	buildPlain  = sync.OnceValues(func() (string, error) { return build("plain") })
	buildRacing = sync.OnceValues(func() (string, error) { return build("racing", "-race") })
)

func build(name string, flags ...string) (string, error) {
	folder := filepath.Join(programFolder, name)
	args := append([]string{"build", "-o", folder + string(filepath.Separator)}, flags...)
	if out, err := exec.Command("go", append(args, "../..", "../../../devsim")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building: %w\n%s", err, out)
	}
	return folder, nil
}

// programs returns a folder with pentrough and devsim, as users have them.
func programs(t *testing.T) string { return builtBy(t, buildPlain) }

// racing returns pentrough with the race detector.
func racing(t *testing.T) string { return filepath.Join(builtBy(t, buildRacing), "pentrough") }

func builtBy(t *testing.T, build func() (string, error)) string {
	t.Helper()
	folder, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return folder
}
