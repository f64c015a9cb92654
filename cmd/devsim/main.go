// Command devsim simulates many TCP devices, for demonstrations, scripts and load tests.
//
//	devsim -addr 127.0.0.1:8123 -n 1000 -record lines.txt
//	devsim -addr 127.0.0.1:8883 -tls -ca ca.pem
//
// Each device connects from its own address, counted up from -from, because a host may identify
// devices by address. The program ends after -duration, at SIGINT or SIGTERM, or, without
// -reconnect, when every connection has ended. Then it prints one line of JSON. When all devices
// have connected for the first time, it says so on stderr.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports"
)

// about is the text of -help before the flags.
const about = `devsim simulates many TCP devices, for demonstrations, scripts and load tests.

  devsim -n 1000 -rate 0.1 -record lines.txt

Each device connects from its own address, reads lines and records them. The program runs until
-duration is over, or until Ctrl-C. Without -reconnect, it also ends when every connection has
ended. At its end it prints a summary as a line of JSON.

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], printable.NewWriter(os.Stdout), printable.NewWriter(os.Stderr))
	stop()
	os.Exit(code)
}

// run runs the program and returns its exit code: 0, or 1 if no device connected or the record
// couldn't be written, or 2 for wrong flags.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	f := &fleet{options: o, stderr: stderr}
	if o.record != "" {
		if f.record, err = os.OpenFile(o.record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
			fmt.Fprintf(stderr, "devsim: opening the record: %v\n", err)
			return 1
		}
	}
	summary := f.run(ctx)
	if f.record != nil {
		if err := errors.Join(f.recordErr, f.record.Close()); err != nil {
			fmt.Fprintf(stderr, "devsim: writing the record: %v\n", err)
			return 1
		}
	}
	if err := json.NewEncoder(stdout).Encode(summary); err != nil {
		fmt.Fprintf(stderr, "devsim: writing the summary: %v\n", err)
		return 1
	}
	if summary.Connected == 0 {
		return 1
	}
	return 0
}

// options has the flags.
type options struct {
	addr      string
	n         int
	from      netip.Addr // invalid: the kernel chooses
	hello     string
	data      string
	rate      float64
	reply     string
	silent    int
	record    string
	reconnect bool
	session   time.Duration
	duration  time.Duration
	tls       *tls.Config // nil: plain TCP
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var from string
	var t transports.TLS
	encrypted := false
	flags := flag.NewFlagSet("devsim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, about)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.addr, "addr", "127.0.0.1:8123", "address of the host")
	flags.IntVar(&o.n, "n", 1, "number of devices")
	flags.StringVar(&from, "from", "127.1.0.0", "source address of the first device, which is also its {id}; each further device has the next address. If empty, the system chooses the addresses, and the ids are device-0, device-1, ...")
	flags.StringVar(&o.hello, "hello", "", "line to send first; {id} stands for the device")
	flags.StringVar(&o.data, "data", "{id} {n}", "line to send at -rate; {n} counts")
	flags.Float64Var(&o.rate, "rate", 0, "data lines that each device sends per second")
	flags.StringVar(&o.reply, "reply", "", "answer to each line; {line} stands for the line, {id} for the device")
	flags.IntVar(&o.silent, "silent", 0, "number of devices that never read: the first ones")
	flags.StringVar(&o.record, "record", "", "file to which each received line is appended, as device, tab, line")
	flags.BoolVar(&o.reconnect, "reconnect", false, "connect again if a connection ends or fails")
	flags.DurationVar(&o.session, "session", 0, "each device disconnects after a random time, between half and one and a half times this value; 0 means never")
	flags.DurationVar(&o.duration, "duration", 0, "end after this time; 0 means never")
	flags.BoolVar(&encrypted, "tls", false, "connect over TLS")
	flags.StringVar(&t.CA, "ca", "", "with -tls: PEM file with the authorities that the host's certificate is checked against; if empty, the system's")
	flags.StringVar(&t.ServerName, "server-name", "", "with -tls: the name that the host's certificate must have; if empty, the host in -addr")
	flags.BoolVar(&t.Insecure, "insecure", false, "with -tls: don't check the host's certificate")
	flags.StringVar(&t.Cert, "cert", "", "with -tls: PEM file with a certificate, which all devices show")
	flags.StringVar(&t.Key, "key", "", "with -tls: PEM file with the key of -cert")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	err := o.check(flags.Args(), from)
	if encrypted {
		err = errors.Join(err, o.setTLS(&t))
	} else if t != (transports.TLS{}) {
		err = errors.Join(err, errors.New("-ca, -server-name, -insecure, -cert and -key need -tls"))
	}
	if err != nil {
		fmt.Fprintf(stderr, "devsim: %v\n", err)
	}
	return o, err
}

// setTLS reads the files of -tls.
func (o *options) setTLS(t *transports.TLS) error {
	if t.ServerName == "" {
		t.ServerName, _, _ = net.SplitHostPort(o.addr) // dialing returns the error
	}
	if err := t.Validate(); err != nil {
		return err
	}
	var err error
	o.tls, err = t.Config()
	return err
}

func (o *options) check(rest []string, from string) error {
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: devsim takes only flags", rest[0]))
	}
	if o.n < 1 {
		errs = append(errs, fmt.Errorf("-n %d is not at least 1", o.n))
	}
	if o.silent < 0 || o.silent > o.n {
		errs = append(errs, fmt.Errorf("-silent %d is not from 0 to -n", o.silent))
	}
	if o.rate < 0 || o.rate > 1000 {
		errs = append(errs, fmt.Errorf("-rate %v is not from 0 to 1000", o.rate))
	}
	if o.session < 0 {
		errs = append(errs, fmt.Errorf("-session %s is negative", o.session))
	}
	if from != "" {
		addr, err := netip.ParseAddr(from)
		if err != nil {
			errs = append(errs, fmt.Errorf("-from %q is not an address", from))
		}
		o.from = addr
	}
	return errors.Join(errs...)
}
