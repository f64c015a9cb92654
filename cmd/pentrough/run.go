package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/deadletters"
	"github.com/pentrough/pentrough/internal/inventory"
	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/telemetry"
	"github.com/pentrough/pentrough/internal/tracing"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// adminTimeout is how long requests to the admin listener may take to end after the host's stop.
const adminTimeout = 2 * time.Second

// ledgerPatience is how long a start waits for the ledger's store at most.
const ledgerPatience = 2 * time.Second

// storeInterval is how often a start looks whether another process still uses the store.
const storeInterval = 100 * time.Millisecond

func newRun() *cobra.Command {
	var file string
	var dry bool
	cmd := &cobra.Command{
		Use:   "run [-c FILE]",
		Short: "Run the host; without a file the embedded quickstart",
		Long: `Run the host that a configuration describes; without a file the embedded quickstart, which needs nothing installed.

SIGINT or SIGTERM stops it in stages within [host] shutdown_timeout; a second one ends it at once.
With --dry-run it connects to everything that the configuration names, says what it found, and starts and changes nothing.
Exit codes: 0 stopped cleanly, 1 the start failed, 2 forced, 3 the stop wasn't clean.`,
		Args: fileByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := run{file: file, out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr()}
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			defer onSignals(stop, r.force)()
			if dry {
				return r.dry(ctx)
			}
			return r.logLast(r.serve(ctx))
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the configuration (default: the embedded quickstart)")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "connect to everything, start nothing, and say what would fail")
	return cmd
}

// run is one run of a host.
type run struct {
	// file is empty for the quickstart.
	file        string
	out, errOut io.Writer

	config *configs.Config
	log    *slog.Logger
	// jsonLog is log if that is JSON, else nil. The second signal may come at any time.
	jsonLog  atomic.Pointer[slog.Logger]
	registry *prometheus.Registry
	ledger   *ledger.Ledger
	tracing  *tracing.Tracing // nil if nobody traces
	devices  *inventory.File  // nil without an inventory
	// letters are nil without a place for them.
	letters *deadletters.Store
}

// serve runs the host from its start to its stop, which begins when ctx ends.
func (r *run) serve(ctx context.Context) error {
	if err := r.prepare(); err != nil {
		return err
	}
	defer r.closeInventory()
	defer calmCollector()()
	defer r.closeLedger()
	defer r.closeTracing(context.WithoutCancel(ctx))
	defer r.closeLetters()
	r.awaitLedger(ctx)
	host, err := router.New(r.config.Router)
	if err != nil {
		return r.startFailed(err)
	}
	// The admin listener is bound first, so that a second host on the same machine fails before it takes anything, and closed last.
	watch := r.watch(host)
	if err := watch.Start(ctx); err != nil {
		return r.startFailed(err)
	}
	defer r.unwatch(ctx, watch)
	r.awaitStore(ctx)
	if err := host.Start(ctx); err != nil && ctx.Err() == nil {
		return r.startFailed(err)
	} else if err != nil {
		r.log.Info("stopped during the start")
		return nil
	}
	r.started(host)
	r.watchInventory()

	r.reloading(ctx, host)
	return r.stop(context.WithoutCancel(ctx), host)
}

// logLast logs the error that ends the host, where its log is JSON: whatever reads that expects JSON of
// the last line, too.
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

// reloading has the host reload at each SIGHUP, until ctx ends.
func (r *run) reloading(ctx context.Context, host *router.Host) {
	hups := make(chan os.Signal, 1)
	signal.Notify(hups, syscall.SIGHUP)
	defer signal.Stop(hups)
	for {
		select {
		case <-hups:
			r.log.Info("reloading; the configuration file is read at a start only")
			if err := host.Reload(ctx); err != nil && ctx.Err() == nil {
				r.log.Error("reloading failed in part; there the old is still at work", "err", err)
			} else if err == nil {
				r.log.Info("reloaded")
			}
		case <-ctx.Done():
			return
		}
	}
}

// prepare reads the configuration and makes what the host is watched by.
func (r *run) prepare() error {
	config, warnings, err := r.load()
	if err != nil {
		return err
	}
	r.config = config
	r.log, err = telemetry.NewLogger(r.errOut, telemetry.Config{Level: config.Host.Log.Level, Format: config.Host.Log.Format})
	if err != nil {
		return r.startFailed(err)
	}
	if config.Host.Log.Format == "json" {
		r.jsonLog.Store(r.log)
	}
	for _, w := range warnings {
		r.log.Warn("configuration", "warning", w.String())
	}
	r.registry, err = telemetry.NewRegistry(versionName())
	if err != nil {
		return r.startFailed(err)
	}
	if err := r.takeInventory(); err != nil {
		return err
	}
	if err := r.trace(); err != nil {
		return r.startFailed(err)
	}
	r.ledger = openLedger(config, r.log)
	r.ledger.LimitHeld(config.Router.Memory.Held)
	if r.letters = deadLettersOf(config); r.letters != nil {
		config.Router.DeadLetters = r.letters
	}
	config.Router.Logger, config.Router.Registerer, config.Router.Ledger = r.log, r.registry, r.ledger
	return nil
}

// openLedger returns the ledger that the configuration asks for; a store is opened in the background, and waited for by those who need it.
func openLedger(c *configs.Config, log *slog.Logger) *ledger.Ledger {
	if c.Store.Type == "sqlite" {
		warnOfOpenFiles(c.Store.Path, log)
	}
	if store := ledgerStoreOf(c); store != nil {
		return ledger.Open(store, log.With("store", c.Store.Type))
	}
	return ledger.New()
}

// warnOfOpenFiles names the files of a SQLite store that not only the host's user can read or
// write.
func warnOfOpenFiles(path string, log *slog.Logger) {
	for _, store := range []string{path, path + "-poison"} {
		for _, part := range []string{"", "-wal", "-shm"} {
			if mode := database.OpenToOthers(store + part); mode != 0 {
				log.Warn("other users may use a file of the store; chmod 600 leaves it to the host", "file", store+part, "mode", mode.String())
			}
		}
	}
}

// awaitLedger gives a store that is well the time to open, so that the first message finds it open.
func (r *run) awaitLedger(ctx context.Context) {
	select {
	case <-r.ledger.Opened():
	case <-time.After(ledgerPatience):
	case <-ctx.Done():
	}
}

// awaitStore waits as long as another process uses the ledger's store, most likely a host that was
// started twice. This one takes no command and no device meanwhile, as it couldn't do anything
// with them. Its log and /readyz name the other one.
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

// closeLedger closes the ledger after a start that failed, or that was stopped.
func (r *run) closeLedger() {
	ctx, cancel := context.WithTimeout(context.Background(), ledgerPatience)
	defer cancel()
	if err := r.ledger.Close(ctx); err != nil {
		r.log.Warn(err.Error())
	}
}

func (r *run) closeLetters() {
	if r.letters == nil {
		return
	}
	if err := r.letters.Close(); err != nil {
		r.log.Warn("closing the store of dead letters", "err", err)
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

// watch returns the host's admin listener.
func (r *run) watch(host *router.Host) *admin.Server {
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
				all[i] = admin.Device{Device: d.Device, Transport: d.Transport, Online: d.Live != nil, Known: d.Known, Labels: d.Labels}
				if l := d.Live; l != nil {
					all[i].RemoteAddr, all[i].Epoch, all[i].ConnectedAt = l.RemoteAddr, l.Epoch, &l.ConnectedAt
					all[i].Waiting, all[i].WaitingBytes, all[i].Asked = l.Waiting, l.WaitingBytes, l.OpenRequests
				}
			}
			return all
		},
		Tap: func(ctx context.Context, ref string) (<-chan *message.Message, error) {
			if reason := unused(r.config.Router, transports.TopicRef(ref)); reason != "" {
				return nil, errors.New(reason)
			}
			return host.Tap(ctx, transports.TopicRef(ref))
		},
	})
}

func (r *run) unwatch(ctx context.Context, watch *admin.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminTimeout)
	defer cancel()
	if err := watch.Close(ctx); err != nil {
		r.log.Warn("closing the admin listener", "err", err)
	}
}

// started says what runs and what it promises.
func (r *run) started(host *router.Host) {
	r.log.Info("started", "host", r.config.Host.Name, "version", versionName(), "pipelines", len(r.config.Router.Pipelines))
	for _, sentence := range host.Promises() {
		r.log.Info("delivery", "promise", sentence)
	}
	if r.file == "" {
		fmt.Fprintf(r.out, tryIt, self())
	}
}

// tryIt is what the quickstart says when it is up, with the program as it was called. Its addresses are those of configs/quickstart.toml.
const tryIt = `The quickstart runs: commands by HTTP at 127.0.0.1:8080, devices by TCP at :8123. Nothing is kept when it ends.

  be a device               nc 127.0.0.1 8123
  send it a command         curl -d '{"address":"127.0.0.1","cmd":"open"}' http://127.0.0.1:8080/commands
  the same, with a verdict  %[1]s send 127.0.0.1 open
  watch who connects        %[1]s listen devices:events
  see how it is             curl http://127.0.0.1:8222/readyz
  begin your own            %[1]s init

Stop it with Ctrl-C.
`

// self is what to type to call this program again.
func self() string {
	if strings.Contains(os.Args[0], "/go-build") { // the place of go run's executables, which are gone when they end
		return "go run ./cmd/pentrough"
	}
	return os.Args[0]
}
