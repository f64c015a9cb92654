package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// nodeHosts makes virtual hosts of a node of this package.
type nodeHosts struct {
	folder string
}

func (h nodeHosts) add(name string) error {
	return eval(h.folder, fmt.Sprintf(`ok = rabbit_vhost:add(<<"%[1]s">>, <<"guest">>),
		rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"%[1]s">>, <<".*">>, <<".*">>, <<".*">>, <<"guest">>)`, name))
}

func (h nodeHosts) remove(name string) error {
	return eval(h.folder, fmt.Sprintf(`rabbit_vhost:delete(<<"%s">>, <<"guest">>)`, name))
}

// evalTimeout is how long evaluation may take on a busy node.
const evalTimeout = 2 * time.Minute

// errNoNode reports that a call reached no node, so nothing was evaluated.
var errNoNode = errors.New("the node takes no call")

// eval makes the node of a folder evaluate an Erlang expression, which must return ok.
func eval(folder, expression string) error {
	for deadline := time.Now().Add(evalTimeout); ; time.Sleep(100 * time.Millisecond) {
		if err := evalOnce(folder, expression); !errors.Is(err, errNoNode) || time.Now().After(deadline) {
			return err
		}
	}
}

// evalOnce is eval without retries. It takes milliseconds. (rabbitmqctl would start an Erlang VM
// of its own, which takes a second of CPU.)
func evalOnce(folder, expression string) error {
	env, err := nodeEnvironment(folder)
	if err != nil {
		return err
	}
	cmd := exec.Command("erl_call", "-timeout", "60", "-e")
	for _, e := range env {
		if port, ok := strings.CutPrefix(e, "RABBITMQ_DIST_PORT="); ok {
			cmd.Args = append(cmd.Args, "-address", "127.0.0.1:"+port)
		}
	}
	cmd.Env, cmd.Stdin = env, strings.NewReader(expression+".\n")
	out, err := cmd.CombinedOutput()
	switch said := strings.TrimSpace(string(out)); {
	case err == nil && said == "{ok, ok}":
		return nil
	case strings.Contains(said, "failed to connect"):
		return fmt.Errorf("%w: %s", errNoNode, said)
	case err == nil:
		return fmt.Errorf("evaluating %s by erl_call: it is not ok: %s", expression, said)
	default:
		return fmt.Errorf("evaluating %s by erl_call: %w: %s", expression, err, said)
	}
}

// nodeEnvironment returns the variables with which a program reaches the node of a folder.
func nodeEnvironment(folder string) ([]string, error) {
	env, err := os.ReadFile(filepath.Join(folder, "environment"))
	return append(os.Environ(), strings.Split(strings.TrimSpace(string(env)), "\n")...), err
}

// ctl runs rabbitmqctl against the node of a folder and returns what it printed.
func ctl(folder string, args ...string) (string, error) {
	bin, err := findScripts()
	if err != nil {
		return "", err
	}
	env, err := nodeEnvironment(folder)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(bin, "rabbitmqctl"), append([]string{"--quiet"}, args...)...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// findScripts finds RabbitMQ's own scripts. Debian's wrappers in /usr/sbin change the user and the
// home folder; these don't.
func findScripts() (string, error) {
	places := []string{"/usr/lib/rabbitmq/bin"}
	if path, err := exec.LookPath("rabbitmq-server"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			places = append(places, filepath.Dir(path))
		}
	}
	for _, place := range places {
		if _, err := os.Stat(filepath.Join(place, "rabbitmq-env")); err == nil {
			return place, nil
		}
	}
	return "", fmt.Errorf("RabbitMQ is not installed (looked in %s): apt-get install rabbitmq-server, or name a running broker in %s", strings.Join(places, ", "), AMQPURL)
}
