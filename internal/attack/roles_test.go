package attack

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// The environment by which the test binary is told to be something other than tests, with what it
// needs as JSON.
const (
	bareRole     = "PENTROUGH_TEST_BARE"
	attackerRole = "PENTROUGH_TEST_ATTACKER"
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(bareRole) != "":
		err = runBare(os.Getenv(bareRole))
	case os.Getenv(attackerRole) != "":
		err = runAttacker(os.Getenv(attackerRole))
	default:
		await.Main(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// launchRole starts this binary in a role. A limit of descriptors of 0 is the usual one.
func launchRole(t *testing.T, folder, log, role string, needs any, descriptors int) *testenv.Program {
	t.Helper()
	text, err := json.Marshal(needs)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	return launchLimited(t, folder, log, []string{role + "=" + string(text)}, descriptors, binary)
}

// launchLimited starts a program under a limit of descriptors; 0 is the usual one.
func launchLimited(t *testing.T, folder, log string, env []string, descriptors int, line ...string) *testenv.Program {
	t.Helper()
	if descriptors > 0 {
		line = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, descriptors)}, line...)
	}
	return testenv.Launch(t, folder, log, env, line[0], line[1:]...)
}

// endpoints are the addresses of a target, and what a caller must know.
type endpoints struct {
	Web, Devices, Admin string
	// Token is what callers by HTTP show; empty if none is asked for.
	Token string
	// AMQP is the broker of the host; the bare accept loop has none.
	AMQP string
}

// order tells the attacker what to do.
type order struct {
	endpoints
	Attack string
	Count  int
	For    time.Duration
}
