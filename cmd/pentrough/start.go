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

// startError returns the error of a start that failed, with what to do next.
func (r *run) startError(err error) error {
	next := "check the configuration with: pentrough validate -c " + r.file
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		next = "end the program that listens there (another pentrough?)" + r.otherAddressAdvice(err)
	case errors.Is(err, fs.ErrPermission):
		next = "run it as a user who may do that" + r.otherAddressAdvice(err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		next = "listen at an address of this machine" + r.otherAddressAdvice(err)
	case r.file == "":
		next = "write a configuration of your own with: pentrough init"
	}
	return advise(fmt.Errorf("starting: %w", err), "%s", next)
}

// otherAddressAdvice says how to listen at another address than the one that failed.
func (r *run) otherAddressAdvice(err error) string {
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
		// If another quickstart uses one of the ports, it uses them all.
		return ", or run the quickstart at other addresses:\npentrough init --example quickstart -o quickstart.toml\n" +
			"change " + strings.Join(all, ", ") + " in it, and\npentrough run -c quickstart.toml"
	case len(those) == 0:
		return ", or change the address in " + r.file
	default:
		return ", or change " + strings.Join(those, " or ") + " in " + r.file
	}
}

// listener is a setting with an address to listen at.
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
