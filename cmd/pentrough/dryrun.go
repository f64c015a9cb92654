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

// dryPatience is how long one part of a dry run may take.
const dryPatience = 15 * time.Second

// checked is one line of a dry run.
type checked struct {
	where string
	transports.Check
}

// dry connects to all that the configuration names, starts nothing and changes nothing.
func (r *run) dry(ctx context.Context) error {
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
		return advise(fmt.Errorf("%d of %d checks failed", failed, len(all)), "see the table, and try again with: %s", r.again())
	}
	fmt.Fprintf(r.out, "%d checks, none failed; nothing was started or changed\n", len(all))
	return nil
}

func (r *run) again() string {
	if r.file == "" {
		return "pentrough run --dry-run"
	}
	return "pentrough run --dry-run -c " + r.file
}

// dryHost checks the admin listener, the inventory and the collector of traces.
func (r *run) dryHost(ctx context.Context) []checked {
	var all []checked
	if addr := r.config.Host.Admin; addr != "" {
		all = append(all, checked{"[host]", binds(ctx, "admin", addr)})
	}
	if file := r.config.Inventory.File; file != "" {
		c := transports.Check{Part: "file", Next: "correct it; pentrough validate says where"}
		list, err := readInventory(file)
		if c.Found = fmt.Sprintf("%s lists %d %s", file, len(list), plural(len(list), "device", "devices")); err != nil {
			c.Err = err
		}
		all = append(all, checked{"[inventory]", c})
	}
	if endpoint := r.config.Tracing.Endpoint; endpoint != "" {
		all = append(all, checked{"[tracing]", reaches(ctx, endpoint)})
	}
	return all
}

// binds checks that an address can be listened on.
func binds(ctx context.Context, part, addr string) transports.Check {
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
		c.Next = "end what listens there (another pentrough?), or change the address"
	case errors.Is(err, fs.ErrPermission):
		c.Next = "run it as a user who may do that, or change the address"
	default:
		c.Next = "listen at an address that this machine has"
	}
	return c
}

// reaches checks that somebody listens at the collector's address. Nothing is sent.
func reaches(ctx context.Context, endpoint string) transports.Check {
	c := transports.Check{Part: "endpoint", Next: "start the collector, or correct the endpoint; the host works without it"}
	u, err := tracing.ParseEndpoint(endpoint)
	if err != nil {
		c.Err = err
		return c
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	ctx, cancel := context.WithTimeout(ctx, dryPatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)))
	if err != nil {
		c.Err = err
		return c
	}
	conn.Close()
	c.Found = u.Host + " takes connections"
	return c
}

// dryStore opens the ledger to be read.
func (r *run) dryStore(ctx context.Context) []checked {
	store := ledgerStoreOf(r.config)
	if store == nil {
		return []checked{{"[store]", transports.Check{Part: "memory", Found: "the ledger ends with the host"}}}
	}
	ctx, cancel := context.WithTimeout(ctx, dryPatience)
	defer cancel()
	c := transports.Check{Part: r.config.Store.Type, Next: "see [store], and whether what it names can be reached"}
	err := inspecting(ctx, store, func(in *ledger.Inspector) error {
		c.Found = "the ledger is in " + in.Place
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, database.ErrNone):
		c.Missing, c.Found = true, "the ledger will be made"
		if r.config.Store.Type == "sqlite" {
			folder := filepath.Dir(r.config.Store.Path)
			c.Found = r.config.Store.Path + " will be made"
			c.Err, c.Next = mayWrite(folder), "make the folder, and let the host's user write in it"
		}
	case errors.Is(err, database.ErrSchema):
		c.Found = "another version of pentrough wrote the ledger; the start of a newer one updates it, an older one refuses it"
	default:
		c.Err = err
	}
	all := []checked{{"[store]", c}}
	if path := r.config.Store.Path; r.config.Store.Type == "sqlite" && err == nil {
		if err := mayWrite(path); err != nil {
			all = append(all, checked{"[store]", transports.Check{Part: "path", Err: err, Next: "let the host's user write to it"}})
		}
	}
	return append(all, r.dryLetters()...)
}

// dryLetters looks at the file of dead letters, if there is to be one.
func (r *run) dryLetters() []checked {
	needs := func(p router.Pipeline) bool {
		user, ok := p.Handler.Config.(handlers.StoreUser)
		return ok && user.NeedsStore() != ""
	}
	if r.config.Store.Type != "sqlite" || !slices.ContainsFunc(r.config.Router.Pipelines, needs) {
		return nil
	}
	path := r.config.Store.Path + "-poison"
	c := transports.Check{Part: "dead letters", Found: path + " is there", Next: "let the host's user write to it"}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		c.Missing, c.Found = true, path+" will be made"
	} else {
		c.Err = mayWrite(path)
	}
	return []checked{{"[store]", c}}
}

// mayWrite returns why this process couldn't write to a file, or make files in a folder. It tries neither.
func mayWrite(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fileError("looking at", path, err)
	}
	if err := unix.Access(path, unix.W_OK); err != nil {
		return fmt.Errorf("writing to %s: %w", path, err)
	}
	return nil
}

// dryTransports binds what is to be listened on and lets it go again, and asks the transports that can look further.
func (r *run) dryTransports(ctx context.Context) []checked {
	var all []checked
	for _, t := range r.config.Router.Transports {
		where := "[transport." + t.Name + "]"
		before := len(all)
		addrs := transports.NeedsOf(t.Config).Binds
		for _, key := range slices.Sorted(maps.Keys(addrs)) {
			all = append(all, checked{where, binds(ctx, key, addrs[key])})
		}
		if c, ok := t.Config.(transports.Checker); ok {
			env := transports.Env{Name: t.Name, Host: r.config.Host.Name, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
			patient, cancel := context.WithTimeout(ctx, dryPatience)
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

// dryHandlers asks the handlers that need more than their transports.
func (r *run) dryHandlers(ctx context.Context) []checked {
	var all []checked
	for _, p := range r.config.Router.Pipelines {
		c, ok := p.Handler.Config.(handlers.Checker)
		if !ok {
			continue
		}
		patient, cancel := context.WithTimeout(ctx, dryPatience)
		for _, check := range c.Check(patient) {
			all = append(all, checked{"[pipeline." + p.Name + "] handler", check})
		}
		cancel()
	}
	return all
}

// printChecks prints a line for each check, and one more for what failed.
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

// plainLine is an error's text in one line.
func plainLine(text string) string {
	b := []byte(text)
	for i, c := range b {
		if c == '\n' {
			b[i] = ';'
		}
	}
	return string(b)
}
