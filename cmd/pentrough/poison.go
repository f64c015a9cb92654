package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/deadletters"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/router"
)

// deadLettersOf returns the store of the host's dead letters, or nil if the host keeps none. In
// SQLite, dead letters have a file of their own: a SQLite file has one writer at a time, and
// commands wait for the writes of the ledger.
func deadLettersOf(c *configs.Config) *deadletters.Store {
	switch c.Store.Type {
	case "sqlite":
		return deadletters.NewSQLite(c.Store.Path+"-poison", c.Host.Name)
	case "postgres":
		return deadletters.NewPostgres(string(c.Store.URL), c.Host.Name)
	default:
		return nil
	}
}

// poisonVerb has the flags of the verbs below pentrough poison.
type poisonVerb struct {
	file string
	// These flags choose rows.
	pipeline, cause, id string
	since               time.Duration
	states              []string
	all                 bool

	limit                 int
	json, hex, force, yes bool
	to                    string
}

// poisonWork is one call of a verb.
type poisonWork struct {
	*poisonVerb
	cmd    *cobra.Command
	router router.Config
	*deadletters.Operator
}

func newPoison() *cobra.Command {
	v := &poisonVerb{}
	cmd := &cobra.Command{
		Use:   "poison",
		Short: "Show, replay and drop messages that couldn't be handled",
		Long: `Show, replay and drop the dead letters that the handler "store" keeps. The host may run at the same
time, and several people may work at once.

A row has one message that couldn't be handled. The states of a row are:
  new        no one has replayed or dropped the message yet
  replaying  a replay is under way, or it was interrupted
  replayed   the message was sent again to where it came from, with its id
  dropped    someone marked the row, because nothing needs to be done`,
		Example: `  pentrough poison list -c gateway.toml --since 1h
  pentrough poison show -c gateway.toml 17
  pentrough poison replay -c gateway.toml 17 18
  pentrough poison replay -c gateway.toml --all --cause "no such table"
  pentrough poison drop -c gateway.toml --pipeline status --yes`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return advise(fmt.Errorf("poison has no verb %q", args[0]), "%s --help lists the verbs", cmd.CommandPath())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVarP(&v.file, "config", "c", "pentrough.toml", "the configuration")
	cmd.AddCommand(v.newList(), v.newShow(), v.newReplay(), v.newDrop())
	return cmd
}

// addRowFlags adds the flags that choose rows.
func (v *poisonVerb) addRowFlags(cmd *cobra.Command, states string) {
	f := cmd.Flags()
	f.StringVar(&v.pipeline, "pipeline", "", "only messages that failed in this pipeline")
	f.StringVar(&v.cause, "cause", "", "only messages whose cause contains this text")
	f.DurationVar(&v.since, "since", 0, "only messages that failed at most this long ago, such as 1h")
	f.StringVar(&v.id, "id", "", "only the message with this id")
	f.StringSliceVar(&v.states, "state", nil, "only rows in these states: new, replaying, replayed, dropped (default "+states+")")
}

// poisonAct is the function of a verb.
type poisonAct func(ctx context.Context, w *poisonWork, args []string) error

// runReading returns a RunE for a verb that only reads rows.
func (v *poisonVerb) runReading(act poisonAct) func(*cobra.Command, []string) error {
	return v.run((*deadletters.Store).Look, act)
}

// runOperating returns a RunE for a verb that changes rows.
func (v *poisonVerb) runOperating(act poisonAct) func(*cobra.Command, []string) error {
	return v.run(func(s *deadletters.Store, ctx context.Context) (*deadletters.Operator, error) {
		return s.Operate(ctx, operatorName())
	}, act)
}

// run returns a RunE that opens the store and calls act. Ctrl-C cancels act.
func (v *poisonVerb) run(open func(*deadletters.Store, context.Context) (*deadletters.Operator, error), act poisonAct) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		c, _, err := load(v.file, redact.SetOf(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		store := deadLettersOf(c)
		if store == nil {
			return advise(fmt.Errorf("%s has a store in memory, which keeps no dead letters", v.file),
				`use a database: [store] type = "sqlite", path = "pentrough.db"; and a pipeline with handler = "store"`)
		}
		operator, err := open(store, ctx)
		if err == nil {
			err = act(ctx, &poisonWork{poisonVerb: v, cmd: cmd, router: c.Router, Operator: operator}, args)
			err = errors.Join(err, operator.Close())
		}
		return v.adviseError(err)
	}
}

// operatorName returns the name of the user, which other operators see in the rows.
func operatorName() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// adviseError adds to an error what to do next.
func (v *poisonVerb) adviseError(err error) error {
	var known *advisedError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, deadletters.ErrNoRow):
		return advise(err, "pentrough poison list -c %s lists the rows", v.file)
	case errors.Is(err, deadletters.ErrTaken), errors.Is(err, deadletters.ErrLost):
		return advise(err, "pentrough poison show says how it ended, after a minute at most")
	case errors.Is(err, deadletters.ErrUndecided):
		return advise(err, "--force takes the row anyway: if you replay the message, it may arrive twice, with the same id")
	case errors.Is(err, deadletters.ErrSettled):
		return advise(err, "--force takes the row anyway")
	case errors.Is(err, context.Canceled):
		return advise(err, "the command was interrupted; call it again to go on with the remaining rows")
	default:
		return adviseStore(err, v.file, `a host with the handler "store" creates the file`,
			`stop the host and replace the file with the output of "sqlite3 FILE .recover", or move it away: the host creates a new one`)
	}
}

// filter returns the rows that the flags choose. Without --state it chooses the states in
// otherwise.
func (v *poisonVerb) filter(cmd *cobra.Command, otherwise ...deadletters.State) (deadletters.Filter, error) {
	f := deadletters.Filter{Cause: v.cause, States: otherwise}
	if cmd.Flags().Changed("pipeline") {
		f.Pipeline = &v.pipeline
	}
	if cmd.Flags().Changed("id") {
		f.ID = &v.id
	}
	if v.since < 0 {
		return f, advise(fmt.Errorf("--since %s is in the future", v.since), "for example --since 1h")
	}
	if v.since > 0 {
		f.Since = time.Now().Add(-v.since)
	}
	if len(v.states) > 0 {
		f.States = nil
	}
	for _, word := range v.states {
		state, err := deadLetterState(word)
		if err != nil {
			return f, err
		}
		f.States = append(f.States, state)
	}
	return f, nil
}

func deadLetterState(word string) (deadletters.State, error) {
	var known []string
	for _, s := range deadletters.States {
		if s.String() == word {
			return s, nil
		}
		known = append(known, s.String())
	}
	return 0, advise(fmt.Errorf("there is no state %q", word), "the states are %s", strings.Join(known, ", "))
}

// hasRowFlags reports whether the user gave a flag that chooses rows.
func hasRowFlags(cmd *cobra.Command) bool {
	for _, name := range []string{"pipeline", "cause", "since", "id", "state"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// rowNumbers parses the numbers of rows.
func rowNumbers(args []string) ([]int64, error) {
	var numbers []int64
	for _, arg := range args {
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 1 {
			return nil, advise(fmt.Errorf("%q isn't the number of a row", arg), "pentrough poison list shows the numbers")
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}
