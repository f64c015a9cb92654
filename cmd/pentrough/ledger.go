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

// ledgerStore is a store whose ledger outlives the process.
type ledgerStore interface {
	ledger.Store
	// Inspect opens the ledger for reading. A host may use the ledger at the same time.
	Inspect(ctx context.Context) (*ledger.Inspector, error)
	// Repair opens the ledger so that rows can be removed. No host can use it until it is closed.
	Repair(ctx context.Context) (*ledger.Repair, error)
}

// ledgerStoreOf returns the store of the configuration's ledger. It is nil if the ledger is in the
// memory of the host.
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

// ledgerVerb has the flags of pentrough ledger and of the verbs below it.
type ledgerVerb struct {
	file string
	// These flags choose rows.
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
		Short: "Show and repair the host's record of commands",
		Long: `List the commands in the ledger of a configuration's host, the newest first. Without flags, list only
the unfinished ones. The command changes nothing, and a host may run at the same time.

The states of a row are:
  writing    the command has begun, and its outcome isn't recorded yet
  held       the host holds the command until its device connects
  done       the command has a result, which isn't confirmed yet
  confirmed  the command is finished; the row stays so that a duplicate is recognised`,
		Example: `  pentrough ledger -c gateway.toml
  pentrough ledger -c gateway.toml --all --device 10.0.0.7
  pentrough ledger show -c gateway.toml c-4711
  pentrough ledger check -c gateway.toml`,
		Args: fileByFlag,
		RunE: v.run(v.list),
	}
	cmd.PersistentFlags().StringVarP(&v.file, "config", "c", "pentrough.toml", "the configuration")
	f := cmd.Flags()
	v.addRowFlags(cmd)
	f.StringVar(&v.id, "id", "", "only this id")
	f.BoolVar(&v.all, "all", false, "also list confirmed rows")
	f.StringSliceVar(&v.states, "state", nil, "only rows in these states: writing, held, done, confirmed")
	f.IntVarP(&v.limit, "limit", "n", 100, "show at most this many rows; 0 shows all")
	f.BoolVar(&v.json, "json", false, "print each row as a line of JSON")
	cmd.MarkFlagsMutuallyExclusive("all", "state")
	cmd.AddCommand(v.newShow(), v.newForget(), v.newCheck())
	return cmd
}

// addRowFlags adds the flags that choose rows by pipeline and device.
func (v *ledgerVerb) addRowFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&v.pipeline, "pipeline", "", "only rows of this pipeline")
	cmd.Flags().StringVar(&v.device, "device", "", "only rows of this device")
}

// run returns a RunE that opens the configuration and calls act with its store. Ctrl-C cancels
// act.
func (v *ledgerVerb) run(act func(ctx context.Context, cmd *cobra.Command, store ledgerStore, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		store, err := v.configuredStore(redact.SetOf(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		return v.adviseError(act(ctx, cmd, store, args))
	}
}

// configuredStore returns the store that the configuration names.
func (v *ledgerVerb) configuredStore(secrets *redact.Set) (ledgerStore, error) {
	c, _, err := load(v.file, secrets)
	if err != nil {
		return nil, err
	}
	store := ledgerStoreOf(c)
	if store == nil {
		return nil, advise(fmt.Errorf("%s keeps its ledger in the memory of the host, which other programs can't read", v.file),
			`keep it in a database: [store] type = "sqlite", path = "pentrough.db"`)
	}
	return store, nil
}

// withInspector opens a store for reading, calls act, and closes the store.
func withInspector(ctx context.Context, store ledgerStore, act func(*ledger.Inspector) error) (err error) {
	in, err := store.Inspect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return act(in)
}

// withRepair opens a store for a repair, calls act, and closes the store. No host can use it until
// then.
func withRepair(ctx context.Context, store ledgerStore, act func(*ledger.Repair) error) (err error) {
	r, err := store.Repair(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return act(r)
}

// adviseError adds to an error of the store what to do next.
func (v *ledgerVerb) adviseError(err error) error {
	var known *advisedError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, ledger.ErrInUse):
		return advise(err, "stop the host that uses it, and start it again afterwards")
	default:
		return adviseStore(err, v.file, "a host creates its ledger", damagedAdvice)
	}
}

// damagedAdvice says what to do about a damaged file.
const damagedAdvice = `stop the host and replace the file with a backup, or with the output of "sqlite3 FILE .recover"
if you have neither, move the file away: the host creates a new one, and a redelivered command runs again`

// filter returns the rows that the flags choose.
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
	return 0, advise(fmt.Errorf("there is no state %q", word), "the states are writing, held, done and confirmed")
}
