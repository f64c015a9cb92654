package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/redact"
)

// ledgerStore is a ledger that outlives the process.
type ledgerStore interface {
	ledger.Store
	// Inspect opens it to be read, also beside the host that uses it.
	Inspect(ctx context.Context) (*ledger.Inspector, error)
	// Repair opens it so that rows can be removed, and keeps hosts out.
	Repair(ctx context.Context) (*ledger.Repair, error)
}

// ledgerStoreOf returns where a configuration's ledger is kept; nil is the host's memory.
func ledgerStoreOf(c *configs.Config) ledgerStore {
	switch c.Store.Type {
	case "sqlite":
		return ledger.NewSQLite(c.Store.Path, c.Host.Name)
	case "postgres":
		return ledger.NewPostgres(string(c.Store.URL), c.Host.Name)
	default:
		return nil
	}
}

// ledgerVerb is what pentrough ledger and the verbs below it share.
type ledgerVerb struct {
	file string
	// filter is what the flags say; of these, states are words.
	pipeline, device, id string
	states               []string
	all, json, full      bool
	limit                int
	yes, repair          bool
}

func newLedger() *cobra.Command {
	v := &ledgerVerb{}
	cmd := &cobra.Command{
		Use:   "ledger -c FILE",
		Short: "Show and repair what a host remembers of its commands",
		Long: `List what the ledger of a configuration's host has of commands: without flags those that aren't finished, the newest first.

A row is "writing" when a command was begun and nobody knows yet how it ended, "done" when it has a result that isn't confirmed yet, and
"confirmed" when nothing is left to do and it is kept only to recognise the command if it comes again. Looking changes nothing,
and may be done while the host runs.`,
		Example: `  pentrough ledger -c gateway.toml
  pentrough ledger -c gateway.toml --all --device 10.0.0.7
  pentrough ledger show -c gateway.toml c-4711
  pentrough ledger check -c gateway.toml`,
		Args: fileByFlag,
		RunE: v.run(v.list),
	}
	cmd.PersistentFlags().StringVarP(&v.file, "config", "c", "pentrough.toml", "the configuration")
	f := cmd.Flags()
	v.narrows(cmd)
	f.StringVar(&v.id, "id", "", "only this id")
	f.BoolVar(&v.all, "all", false, "also those that are confirmed")
	f.StringSliceVar(&v.states, "state", nil, "only those that are so: writing, held, done, confirmed")
	f.IntVarP(&v.limit, "limit", "n", 100, "show no more than this many; 0 shows all")
	f.BoolVar(&v.json, "json", false, "print each row as a line of JSON")
	cmd.MarkFlagsMutuallyExclusive("all", "state")
	cmd.AddCommand(v.newShow(), v.newForget(), v.newCheck())
	return cmd
}

// narrows adds the flags that choose among rows of an id.
func (v *ledgerVerb) narrows(cmd *cobra.Command) {
	cmd.Flags().StringVar(&v.pipeline, "pipeline", "", "only this pipeline's")
	cmd.Flags().StringVar(&v.device, "device", "", "only this device's")
}

// run is a RunE that lends act the store; Ctrl-C ends it.
func (v *ledgerVerb) run(act func(ctx context.Context, cmd *cobra.Command, store ledgerStore, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		store, err := v.store(redact.SetOf(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		return v.advised(act(ctx, cmd, store, args))
	}
}

// store is where the configuration's ledger is.
func (v *ledgerVerb) store(secrets *redact.Set) (ledgerStore, error) {
	c, _, err := load(v.file, secrets)
	if err != nil {
		return nil, err
	}
	store := ledgerStoreOf(c)
	if store == nil {
		return nil, advise(fmt.Errorf("%s keeps its ledger in the memory of the host, where nobody else can look", v.file),
			`have it in a database: [store] type = "sqlite", path = "pentrough.db"`)
	}
	return store, nil
}

// inspecting lends a store to act.
func inspecting(ctx context.Context, store ledgerStore, act func(*ledger.Inspector) error) (err error) {
	in, err := store.Inspect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return act(in)
}

// repairing lends a store to act, and keeps hosts out meanwhile.
func repairing(ctx context.Context, store ledgerStore, act func(*ledger.Repair) error) (err error) {
	r, err := store.Repair(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return act(r)
}

// advised says of an error of the store what to do next.
func (v *ledgerVerb) advised(err error) error {
	var known *advisedError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, ledger.ErrInUse):
		return advise(err, "stop the host that uses it, and start it again afterwards")
	default:
		return adviseStore(err, v.file, "a host makes its ledger", damagedAdvice)
	}
}

// damagedAdvice is what remains to be done with a file that isn't whole.
const damagedAdvice = `stop the host and put a copy from before the damage in the file's place, or what "sqlite3 FILE .recover" makes of it
without either, move it away: the host makes a new one, and a command that comes again runs again`

// filter is what the flags choose.
func (v *ledgerVerb) filter(cmd *cobra.Command) (ledger.Filter, error) {
	var f ledger.Filter
	for name, want := range map[string]**string{"pipeline": &f.Pipeline, "device": &f.Device, "id": &f.ID} {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
			value := flag.Value.String()
			*want = &value
		}
	}
	for _, word := range v.states {
		state, err := ledgerState(word)
		if err != nil {
			return f, err
		}
		f.States = append(f.States, state)
	}
	return f, nil
}

func ledgerState(word string) (ledger.State, error) {
	for _, s := range []ledger.State{ledger.Writing, ledger.Held, ledger.Done, ledger.Confirmed} {
		if s.String() == word {
			return s, nil
		}
	}
	return 0, advise(fmt.Errorf("no row is %q", word), "a row is writing, done or confirmed")
}
