package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/bans"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/deadletters"
	"github.com/pentrough/pentrough/internal/inventory"
	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/recording"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/telemetry"
	"github.com/pentrough/pentrough/internal/tracing"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// adminTimeout limits how long open requests to the admin listener may take to end after the host
// has stopped.
const adminTimeout = 2 * time.Second

// ledgerPatience is the longest time that a start waits for the ledger's store.
const ledgerPatience = 2 * time.Second

// storeInterval is how often a start checks whether another process still uses the store.
const storeInterval = 100 * time.Millisecond

func newRun() *cobra.Command {
	var file string
	var dry bool
	cmd := &cobra.Command{
		Use:   "run [-c FILE]",
		Short: "Run the host; without a file the embedded quickstart",
		Long: `Run the host that a configuration describes. Without a file, run the embedded quickstart, which needs
no other software.

SIGINT or SIGTERM stops the host in stages, within shutdown_timeout of [host]. A second signal ends
it at once. With --dry-run the command connects to everything that the configuration names and
prints what it found; it starts and changes nothing.

Exit codes: 0 the host stopped cleanly, 1 the start failed, 2 a second signal ended the host,
3 the stop wasn't clean.`,
		Args: fileByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := run{file: file, out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr()}
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			defer onSignals(stop, r.forceExit)()
			if dry {
				return r.dryRun(ctx)
			}
			return r.logLast(r.serve(ctx))
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the configuration (default: the embedded quickstart)")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "connect to everything, start nothing, and print what would fail")
	return cmd
}

// run is one call of the verb run.
type run struct {
	// file is the configuration; it is empty for the quickstart.
	file        string
	out, errOut io.Writer

	config *configs.Config
	log    *slog.Logger
	// jsonLog is the log if its format is JSON, otherwise nil. It is atomic because the second
	// signal can come at any time.
	jsonLog  atomic.Pointer[slog.Logger]
	registry *prometheus.Registry
	ledger   *ledger.Ledger
	tracing  *tracing.Tracing // nil if tracing is off
	devices  *inventory.File  // nil without an inventory
	// deadLetters is nil if the store is memory.
	deadLetters *deadletters.Store
	// bans is nil if the store is memory.
	bans *bans.Store
}

// serve runs the host. The stop begins when ctx ends.
func (r *run) serve(ctx context.Context) error {
	if err := r.prepare(); err != nil {
		return err
	}
	defer r.closeInventory()
	defer calmCollector()()
	defer r.closeLedger()
	defer r.closeTracing(context.WithoutCancel(ctx))
	defer r.closeDeadLetters()
	defer r.closeBans()
	r.awaitLedger(ctx)
	host, err := router.New(r.config.Router)
	if err != nil {
		return r.startError(err)
	}
	// The admin listener is bound first: so a second host with the same configuration fails before
	// it takes messages or devices. It is closed last.
	adminServer := r.newAdmin(host)
	if err := adminServer.Start(ctx); err != nil {
		return r.startError(err)
	}
	defer r.closeAdmin(ctx, adminServer)
	r.awaitStore(ctx)
	if err := host.Start(ctx); err != nil && ctx.Err() == nil {
		return r.startError(err)
	} else if err != nil {
		r.log.Info("stopped during the start")
		return nil
	}
	r.logStarted(host)
	r.watchInventory()

	r.reloadOnHangup(ctx, host)
	return r.stop(context.WithoutCancel(ctx), host)
}

// logLast logs the error that ends the host if the log is JSON, because a program that reads the
// log expects JSON in the last line, too.
func (r *run) logLast(err error) error {
	log := r.jsonLog.Load()
	if err == nil || log == nil {
		return err
	}
	attrs := []any{"err", err}
	if a, ok := errors.AsType[*advisedError](err); ok {
		attrs = append(attrs, "next", a.next)
	}
	log.Error("the host ended with an error", attrs...)
	return &loggedError{err}
}

// reloadOnHangup reloads the host at each SIGHUP until ctx ends.
func (r *run) reloadOnHangup(ctx context.Context, host *router.Host) {
	hups := make(chan os.Signal, 1)
	signal.Notify(hups, syscall.SIGHUP)
	defer signal.Stop(hups)
	for {
		select {
		case <-hups:
			r.log.Info("reloading; the host reads its configuration file only when it starts")
			if err := host.Reload(ctx); err != nil && ctx.Err() == nil {
				r.log.Error("reloading failed in part; the parts that failed continue unchanged", "err", err)
			} else if err == nil {
				r.log.Info("reloaded")
			}
		case <-ctx.Done():
			return
		}
	}
}

// prepare reads the configuration and creates the parts that the host needs before its start:
// logger, metrics, inventory, tracing and stores.
func (r *run) prepare() error {
	config, warnings, err := r.load()
	if err != nil {
		return err
	}
	r.config = config
	r.log, err = telemetry.NewLogger(r.errOut, telemetry.Config{Level: config.Host.Log.Level, Format: config.Host.Log.Format})
	if err != nil {
		return r.startError(err)
	}
	if config.Host.Log.Format == "json" {
		r.jsonLog.Store(r.log)
	}
	for _, w := range warnings {
		r.log.Warn("configuration", "warning", w.String())
	}
	r.registry, err = telemetry.NewRegistry(versionName())
	if err != nil {
		return r.startError(err)
	}
	if err := r.openInventory(); err != nil {
		return err
	}
	if err := r.openTracing(); err != nil {
		return r.startError(err)
	}
	r.ledger = openLedger(config, r.log)
	r.ledger.LimitHeld(config.Router.Memory.Held)
	if r.deadLetters = deadLettersOf(config); r.deadLetters != nil {
		config.Router.DeadLetters = r.deadLetters
	}
	if r.bans, err = bansOf(config); err != nil {
		return r.startError(err)
	} else if r.bans != nil {
		config.Router.Bans = r.bans
	}
	config.Router.Logger, config.Router.Registerer, config.Router.Ledger = r.log, r.registry, r.ledger
	return nil
}

// openLedger returns the ledger that the configuration asks for. A store opens in the background;
// callers that need it wait for it.
func openLedger(c *configs.Config, log *slog.Logger) *ledger.Ledger {
	if c.Store.Type == "sqlite" {
		warnOfOpenFiles(c.Store.Path, log)
	}
	if store := ledgerStoreOf(c); store != nil {
		return ledger.Open(store, log.With("store", c.Store.Type))
	}
	return ledger.New()
}

// warnOfOpenFiles warns about files of a SQLite store that other users can read or write.
func warnOfOpenFiles(path string, log *slog.Logger) {
	for _, store := range []string{path, path + "-poison", path + "-bans"} {
		for _, part := range []string{"", "-wal", "-shm"} {
			if mode := database.OpenToOthers(store + part); mode != 0 {
				log.Warn("other users can use a file of the store; chmod 600 restricts it to the host's user", "file", store+part, "mode", mode.String())
			}
		}
	}
}

// awaitLedger waits a short time for the store to open, so that the first message usually finds it
// open.
func (r *run) awaitLedger(ctx context.Context) {
	select {
	case <-r.ledger.Opened():
	case <-time.After(ledgerPatience):
	case <-ctx.Done():
	}
}

// awaitStore waits while another process uses the ledger's store. Usually that is the same host,
// started twice. Until the other process ends, this host takes no commands and no devices, because
// it couldn't handle them. Its log and /readyz name the other process.
func (r *run) awaitStore(ctx context.Context) {
	for errors.Is(r.ledger.Health(), ledger.ErrInUse) {
		select {
		case <-r.ledger.Opened():
		case <-time.After(storeInterval):
		case <-ctx.Done():
			return
		}
	}
}

// closeLedger closes the ledger after a start that failed or was interrupted.
func (r *run) closeLedger() {
	ctx, cancel := context.WithTimeout(context.Background(), ledgerPatience)
	defer cancel()
	if err := r.ledger.Close(ctx); err != nil {
		r.log.Warn(err.Error())
	}
}

// closeDeadLetters closes the store of dead letters, if there is one.
func (r *run) closeDeadLetters() {
	if r.deadLetters == nil {
		return
	}
	if err := r.deadLetters.Close(); err != nil {
		r.log.Warn("closing the store of dead letters", "err", err)
	}
}

// closeBans closes the store of bans, if there is one.
func (r *run) closeBans() {
	if r.bans == nil {
		return
	}
	if err := r.bans.Close(); err != nil {
		r.log.Warn("closing the store of bans", "err", err)
	}
}

func (r *run) load() (*configs.Config, configs.Warnings, error) {
	if r.file != "" {
		return load(r.file, redact.SetOf(r.errOut))
	}
	text, err := configs.Example(configs.Quickstart)
	if err != nil {
		return nil, nil, err
	}
	return configs.Parse("quickstart", text, configs.Options{OpenFiles: listen.OpenFiles(), Secrets: redact.SetOf(r.errOut)})
}

// newAdmin returns the host's admin listener.
func (r *run) newAdmin(host *router.Host) *admin.Server {
	return admin.New(admin.Config{
		Addr: r.config.Host.Admin, Connections: listen.AdminShare(listen.OpenFiles()), Hosts: r.config.Host.AdminHosts, Version: versionName(), Logger: r.log, Gatherer: r.registry,
		Redact: r.config.Router.Redact,
		Health: func() []admin.Health {
			var all []admin.Health
			for _, h := range host.Health() {
				all = append(all, admin.Health(h))
			}
			return all
		},
		Host: r.config.Router.Name,
		Devices: func() []admin.Device {
			fleet := host.Fleet()
			all := make([]admin.Device, len(fleet))
			for i, d := range fleet {
				all[i] = deviceJSON(d)
			}
			return all
		},
		Gate: gate{host: host, redact: r.config.Router.Redact},
		Tap: func(ctx context.Context, ref string) (<-chan *message.Message, error) {
			if reason := unusedTopic(r.config.Router, transports.TopicRef(ref)); reason != "" {
				return nil, errors.New(reason)
			}
			return host.Tap(ctx, transports.TopicRef(ref))
		},
		Record: func(ctx context.Context, ask admin.RecordRequest) (iter.Seq[recording.Line], error) {
			return recordLines(ctx, host, r.config.Router.Name, ask)
		},
	})
}

func (r *run) closeAdmin(ctx context.Context, server *admin.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminTimeout)
	defer cancel()
	if err := server.Close(ctx); err != nil {
		r.log.Warn("closing the admin listener", "err", err)
	}
}

// logStarted logs that the host runs and which delivery guarantees its pipelines have.
func (r *run) logStarted(host *router.Host) {
	r.log.Info("started", "host", r.config.Host.Name, "version", versionName(), "pipelines", len(r.config.Router.Pipelines))
	for _, sentence := range host.Promises() {
		r.log.Info("delivery", "promise", sentence)
	}
	if r.file == "" {
		fmt.Fprintf(r.out, tryIt, ownCommand())
	}
}

// tryIt is what the quickstart prints when it runs; %[1]s is the name of this program. The
// addresses are those in configs/quickstart.toml.
const tryIt = `The quickstart runs. It takes commands by HTTP at 127.0.0.1:8080 and devices by TCP at :8123.
Everything is in memory and is lost when it ends.

  act as a device               nc 127.0.0.1 8123
  send it a command             curl -d '{"address":"127.0.0.1","cmd":"open"}' http://127.0.0.1:8080/commands
  send it and see the result    %[1]s send 127.0.0.1 open
  see which devices connect     %[1]s listen devices:events
  check whether the host works  curl http://127.0.0.1:8222/readyz
  write your own configuration  %[1]s init

Stop it with Ctrl-C.
`

// ownCommand returns what the user types to call this program.
func ownCommand() string {
	if strings.Contains(os.Args[0], "/go-build") { // "go run" removes its executable when it ends
		return "go run ./cmd/pentrough"
	}
	return os.Args[0]
}
