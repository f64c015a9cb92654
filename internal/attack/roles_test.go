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

// These environment variables give the test binary a role other than running tests. Their value is
// the role's input as JSON.
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

// launchRole starts this binary in a role. If descriptors is 0, the usual limit applies.
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

// launchLimited starts a program with a limit of file descriptors. If descriptors is 0, the usual
// limit applies.
func launchLimited(t *testing.T, folder, log string, env []string, descriptors int, line ...string) *testenv.Program {
	t.Helper()
	if descriptors > 0 {
		line = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, descriptors)}, line...)
	}
	return testenv.Launch(t, folder, log, env, line[0], line[1:]...)
}

// endpoints are the addresses of a target, and the token and broker that callers need.
type endpoints struct {
	Web, Devices, Admin string
	// Token is the token that HTTP callers send. It is empty if the target asks for none.
	Token string
	// AMQP is the address of the host's broker. The bare accept loop has none.
	AMQP string
}

// order is the attacker's input.
type order struct {
	endpoints
	Attack string
	Count  int
	For    time.Duration
}
