package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/tracing"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// checkTimeout is how long one check of a dry run may take.
const checkTimeout = 15 * time.Second

// checked is one line in the output of a dry run.
type checked struct {
	where string
	transports.Check
}

// dryRun connects to everything that the configuration names. It starts and changes nothing.
func (r *run) dryRun(ctx context.Context) error {
	config, warnings, err := r.load()
	if err != nil {
		return err
	}
	r.config = config
	printWarnings(r.errOut, warnings)
	all := slices.Concat(r.dryHost(ctx), r.dryStore(ctx), r.dryTransports(ctx), r.dryHandlers(ctx))
	printChecks(redact.NewWriter(r.out, redact.SetOf(r.errOut)), all)
	failed := 0
	for _, c := range all {
		if c.Err != nil {
			failed++
		}
	}
	if failed > 0 {
		return advise(fmt.Errorf("%d of %d checks failed", failed, len(all)), "correct what the table says, and try again with: %s", r.dryRunCommand())
	}
	fmt.Fprintf(r.out, "all %d checks passed; nothing was started or changed\n", len(all))
	return nil
}

// dryRunCommand returns the command that repeats the dry run.
func (r *run) dryRunCommand() string {
	if r.file == "" {
		return "pentrough run --dry-run"
	}
	return "pentrough run --dry-run -c " + r.file
}

// dryHost checks the admin listener, the inventory and the collector of traces.
func (r *run) dryHost(ctx context.Context) []checked {
	var all []checked
	if addr := r.config.Host.Admin; addr != "" {
		all = append(all, checked{"[host]", checkListen(ctx, "admin", addr)})
	}
	if file := r.config.Inventory.File; file != "" {
		c := transports.Check{Part: "file", Next: "correct the file; pentrough validate names the place"}
		list, err := readInventory(file)
		if c.Found = fmt.Sprintf("%s lists %d %s", file, len(list), plural(len(list), "device", "devices")); err != nil {
			c.Err = err
		}
		all = append(all, checked{"[inventory]", c})
	}
	if endpoint := r.config.Tracing.Endpoint; endpoint != "" {
		all = append(all, checked{"[tracing]", checkCollector(ctx, endpoint)})
	}
	return all
}

// checkListen checks that the host can listen at an address.
func checkListen(ctx context.Context, part, addr string) transports.Check {
	c := transports.Check{Part: part, Found: addr + " is free"}
	l, err := listen.TCP(ctx, new(net.ListenConfig), addr)
	if err == nil {
		err = l.Close()
	}
	if err == nil {
		return c
	}
	c.Err = err
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		c.Next = "end the program that listens there (another pentrough?), or change the address"
	case errors.Is(err, fs.ErrPermission):
		c.Next = "run it as a user who may do that, or change the address"
	default:
		c.Next = "listen at an address of this machine"
	}
	return c
}

// checkCollector checks that a server listens at the collector's address. It sends nothing.
func checkCollector(ctx context.Context, endpoint string) transports.Check {
	c := transports.Check{Part: "endpoint", Next: "start the collector, or correct the endpoint; the host also works without a collector"}
	u, err := tracing.ParseEndpoint(endpoint)
	if err != nil {
		c.Err = err
		return c
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)))
	if err != nil {
		c.Err = err
		return c
	}
	conn.Close()
	c.Found = u.Host + " accepts connections"
	return c
}

// dryStore opens the ledger for reading.
func (r *run) dryStore(ctx context.Context) []checked {
	store := ledgerStoreOf(r.config)
	if store == nil {
		return []checked{{"[store]", transports.Check{Part: "memory", Found: "the ledger is lost when the host ends"}}}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c := transports.Check{Part: r.config.Store.Type, Next: "check [store], and that the database can be reached"}
	err := withInspector(ctx, store, func(in *ledger.Inspector) error {
		c.Found = "the ledger is in " + in.Place
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, database.ErrNone):
		c.Missing, c.Found = true, "the host will create the ledger"
		if r.config.Store.Type == "sqlite" {
			folder := filepath.Dir(r.config.Store.Path)
			c.Found = "the host will create " + r.config.Store.Path
			c.Err, c.Next = mayWrite(folder), "create the folder, and let the host's user write to it"
		}
	case errors.Is(err, database.ErrSchema):
		c.Found = "another version of pentrough wrote the ledger; a newer host updates it when it starts, an older host refuses it"
	default:
		c.Err = err
	}
	all := []checked{{"[store]", c}}
	if path := r.config.Store.Path; r.config.Store.Type == "sqlite" && err == nil {
		if err := mayWrite(path); err != nil {
			all = append(all, checked{"[store]", transports.Check{Part: "path", Err: err, Next: "let the host's user write to the file"}})
		}
	}
	return append(all, r.dryFiles()...)
}

// dryFiles checks the store's other files: the dead letters, if a pipeline needs them, and the
// bans of devices, if there are any.
func (r *run) dryFiles() []checked {
	needs := func(p router.Pipeline) bool {
		user, ok := p.Handler.Config.(handlers.StoreUser)
		return ok && user.NeedsStore() != ""
	}
	if r.config.Store.Type != "sqlite" {
		return nil
	}
	var all []checked
	if slices.ContainsFunc(r.config.Router.Pipelines, needs) {
		all = append(all, checked{"[store]", dryFile("dead letters", r.config.Store.Path+"-poison")})
	}
	if c := dryFile("bans", r.config.Store.Path+"-bans"); !c.Missing {
		all = append(all, checked{"[store]", c})
	}
	return all
}

// dryFile checks a file that the host makes if it is missing.
func dryFile(part, path string) transports.Check {
	c := transports.Check{Part: part, Found: path + " exists", Next: "let the host's user write to the file"}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		c.Missing, c.Found = true, "the host will create "+path
	} else {
		c.Err = mayWrite(path)
	}
	return c
}

// mayWrite returns an error if this process can't write to a file, or can't create files in a
// folder. It changes neither.
func mayWrite(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fileError("checking", path, err)
	}
	if err := unix.Access(path, unix.W_OK); err != nil {
		return fmt.Errorf("writing to %s: %w", path, err)
	}
	return nil
}

// dryTransports checks the addresses at which transports listen. It also calls the transports that
// have checks of their own.
func (r *run) dryTransports(ctx context.Context) []checked {
	var all []checked
	for _, t := range r.config.Router.Transports {
		where := "[transport." + t.Name + "]"
		before := len(all)
		addrs := transports.NeedsOf(t.Config).Binds
		for _, key := range slices.Sorted(maps.Keys(addrs)) {
			all = append(all, checked{where, checkListen(ctx, key, addrs[key])})
		}
		if c, ok := t.Config.(transports.Checker); ok {
			env := transports.Env{Name: t.Name, Host: r.config.Host.Name, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
			patient, cancel := context.WithTimeout(ctx, checkTimeout)
			for _, check := range c.Check(patient, env, topicUses(r.config.Router, t.Name)) {
				all = append(all, checked{where, check})
			}
			cancel()
		}
		if len(all) == before {
			all = append(all, checked{where, transports.Check{Part: t.Type, Found: "needs nothing outside the host"}})
		}
	}
	return all
}

// dryHandlers calls the handlers that have checks of their own.
func (r *run) dryHandlers(ctx context.Context) []checked {
	var all []checked
	for _, p := range r.config.Router.Pipelines {
		c, ok := p.Handler.Config.(handlers.Checker)
		if !ok {
			continue
		}
		patient, cancel := context.WithTimeout(ctx, checkTimeout)
		for _, check := range c.Check(patient) {
			all = append(all, checked{"[pipeline." + p.Name + "] handler", check})
		}
		cancel()
	}
	return all
}

// printChecks prints a line for each check, and another with advice if it failed.
func printChecks(out io.Writer, all []checked) {
	where, part := 0, 0
	for _, c := range all {
		where, part = max(where, len([]rune(c.where))), max(part, len([]rune(c.Part)))
	}
	for _, c := range all {
		verdict, text := "ok", c.Found
		switch {
		case c.Err != nil:
			verdict, text = "FAIL", plainLine(c.Err.Error())
		case c.Missing:
			verdict = "new"
		}
		fmt.Fprintf(out, "%-4s  %-*s  %-*s  %s\n", verdict, where, c.where, part, c.Part, text)
		if c.Err != nil && c.Next != "" {
			fmt.Fprintf(out, "%-*s  next: %s\n", 4+2+where+2+part, "", c.Next)
		}
	}
}

// plainLine returns an error's text as one line.
func plainLine(text string) string {
	b := []byte(text)
	for i, c := range b {
		if c == '\n' {
			b[i] = ';'
		}
	}
	return string(b)
}
