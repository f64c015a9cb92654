package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ctlHosts makes virtual hosts of a node of this package by rabbitmqctl.
type ctlHosts struct {
	folder string
}

// One eval instead of add_vhost and set_permissions: each rabbitmqctl costs an Erlang start.
func (c ctlHosts) add(name string) error {
	out, err := ctl(c.folder, "eval", fmt.Sprintf(`
		ok = rabbit_vhost:add(<<"%[1]s">>, <<"guest">>),
		ok = rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"%[1]s">>, <<".*">>, <<".*">>, <<".*">>, <<"guest">>).`, name))
	if err == nil && strings.TrimSpace(out) != "ok" {
		err = fmt.Errorf("rabbitmqctl eval: %s", out)
	}
	return err
}

func (c ctlHosts) remove(name string) error {
	_, err := ctl(c.folder, "delete_vhost", name)
	return err
}

// ctl runs rabbitmqctl against the node of a folder and returns what it printed.
func ctl(folder string, args ...string) (string, error) {
	bin, err := scripts()
	if err != nil {
		return "", err
	}
	env, err := os.ReadFile(filepath.Join(folder, "environment"))
	if err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(bin, "rabbitmqctl"), append([]string{"--quiet"}, args...)...)
	cmd.Env = append(os.Environ(), strings.Split(strings.TrimSpace(string(env)), "\n")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// scripts finds RabbitMQ's own scripts. Debian's wrappers in /usr/sbin change the user and the home folder, these don't.
func scripts() (string, error) {
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
