package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/pentrough/pentrough/transports"
)

// startFailed says of a start that failed what to do next.
func (r *run) startFailed(err error) error {
	next := "check the configuration with: pentrough validate -c " + r.file
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		next = "end what listens there (another pentrough?)" + r.elsewhere(err)
	case errors.Is(err, fs.ErrPermission):
		next = "run it as a user who may do that" + r.elsewhere(err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		next = "listen at an address that this machine has" + r.elsewhere(err)
	case r.file == "":
		next = "begin a configuration of your own with: pentrough init"
	}
	return advise(fmt.Errorf("starting: %w", err), "%s", next)
}

// elsewhere says how to listen at another address than the one that failed.
func (r *run) elsewhere(err error) string {
	var failed string
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Addr != nil {
		failed = e.Addr.String()
	}
	var all, those []string
	for _, l := range r.listeners() {
		all = append(all, l.key)
		if addr, err := net.ResolveTCPAddr("tcp", l.addr); err == nil && addr.String() == failed {
			those = append(those, l.key)
		}
	}
	switch {
	case r.file == "":
		// Where one of its ports is taken by another quickstart, all are.
		return ", or run the quickstart at other addresses:\npentrough init --example quickstart -o quickstart.toml\n" +
			"change " + strings.Join(all, ", ") + " in it, and\npentrough run -c quickstart.toml"
	case len(those) == 0:
		return ", or change the address in " + r.file
	default:
		return ", or change " + strings.Join(those, " or ") + " in " + r.file
	}
}

// listener is a setting that says where to listen.
type listener struct{ key, addr string }

func (r *run) listeners() []listener {
	all := []listener{{"[host] admin", r.config.Host.Admin}}
	for _, t := range r.config.Router.Transports {
		binds := transports.NeedsOf(t.Config).Binds
		for _, key := range slices.Sorted(maps.Keys(binds)) {
			all = append(all, listener{"[transport." + t.Name + "] " + key, binds[key]})
		}
	}
	return all
}
