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

// deadLettersOf returns where a configuration's host keeps dead letters; nil is nowhere. Beside a ledger's file they have one of their own, as
// a SQLite file has one writer at a time and commands wait for the ledger.
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

// poisonVerb is what the verbs below pentrough poison share.
type poisonVerb struct {
	file string
	// These choose rows; of them, states are words.
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
		Long: `Work on the rows that the handler "store" keeps of messages which couldn't be handled, also while the host runs and others do the same.

A row is "new" until somebody replays it, which sends its message back to where it came from, with its id, or drops it, which only marks
it. It is "replaying" while somebody does, or when he was cut off.`,
		Example: `  pentrough poison list -c gateway.toml --since 1h
  pentrough poison show -c gateway.toml 17
  pentrough poison replay -c gateway.toml 17 18
  pentrough poison replay -c gateway.toml --all --cause "no such table"
  pentrough poison drop -c gateway.toml --pipeline status --yes`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return advise(fmt.Errorf("there is no poison %q", args[0]), "%s --help lists what there is", cmd.CommandPath())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVarP(&v.file, "config", "c", "pentrough.toml", "the configuration")
	cmd.AddCommand(v.newList(), v.newShow(), v.newReplay(), v.newDrop())
	return cmd
}

// narrows adds the flags that choose rows.
func (v *poisonVerb) narrows(cmd *cobra.Command, states string) {
	f := cmd.Flags()
	f.StringVar(&v.pipeline, "pipeline", "", "only those that failed in this pipeline")
	f.StringVar(&v.cause, "cause", "", "only those whose cause has this in it")
	f.DurationVar(&v.since, "since", 0, "only those of this last time, such as 1h")
	f.StringVar(&v.id, "id", "", "only the message with this id")
	f.StringSliceVar(&v.states, "state", nil, "only those that are so: new, replaying, replayed, dropped (default "+states+")")
}

// poisonAct is what a verb does.
type poisonAct func(ctx context.Context, w *poisonWork, args []string) error

// look returns a RunE that reads rows, operate one that changes them.
func (v *poisonVerb) look(act poisonAct) func(*cobra.Command, []string) error {
	return v.run((*deadletters.Store).Look, act)
}

func (v *poisonVerb) operate(act poisonAct) func(*cobra.Command, []string) error {
	return v.run(func(s *deadletters.Store, ctx context.Context) (*deadletters.Operator, error) {
		return s.Operate(ctx, operatorName())
	}, act)
}

// run returns a RunE that opens the store for act; Ctrl-C ends it.
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
				`have a database: [store] type = "sqlite", path = "pentrough.db"; and a pipeline with handler = "store"`)
		}
		operator, err := open(store, ctx)
		if err == nil {
			err = act(ctx, &poisonWork{poisonVerb: v, cmd: cmd, router: c.Router, Operator: operator}, args)
			err = errors.Join(err, operator.Close())
		}
		return v.advised(err)
	}
}

// operatorName is who works, for others to see.
func operatorName() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// advised says of an error what to do next.
func (v *poisonVerb) advised(err error) error {
	var known *advisedError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, deadletters.ErrNoRow):
		return advise(err, "pentrough poison list -c %s lists what there is", v.file)
	case errors.Is(err, deadletters.ErrTaken), errors.Is(err, deadletters.ErrLost):
		return advise(err, "pentrough poison show says how it ended, in a minute at the latest")
	case errors.Is(err, deadletters.ErrUndecided):
		return advise(err, "--force takes it all the same: replayed again it may come twice, with the same id")
	case errors.Is(err, deadletters.ErrSettled):
		return advise(err, "--force takes it all the same")
	case errors.Is(err, context.Canceled):
		return advise(err, "it was interrupted; the same again goes on with what is left")
	default:
		return adviseStore(err, v.file, `a host with the handler "store" makes it`,
			`stop the host and put what "sqlite3 FILE .recover" makes of it in its place, or move it away: the host makes a new one`)
	}
}

// filter is what the flags choose, otherwise of these states.
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
	return 0, advise(fmt.Errorf("no row is %q", word), "a row is one of %s", strings.Join(known, ", "))
}

// narrowed says whether a flag chooses rows.
func narrowed(cmd *cobra.Command) bool {
	for _, name := range []string{"pipeline", "cause", "since", "id", "state"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// rowNumbers reads the numbers of rows.
func rowNumbers(args []string) ([]int64, error) {
	var numbers []int64
	for _, arg := range args {
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 1 {
			return nil, advise(fmt.Errorf("%q is no number of a row", arg), "pentrough poison list shows the numbers")
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}
