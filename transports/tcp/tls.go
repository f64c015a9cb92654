package tcp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pentrough/pentrough/internal/filewatch"
	"github.com/pentrough/pentrough/transports"
)

// tlsSettings is the table tls.
type tlsSettings struct {
	transports.ServerTLS
	ClientCA       string `toml:"client_ca" doc:"PEM file with the authorities that the certificates of devices are checked against." example:"\"/etc/pentrough/devices-ca.pem\""`
	Client         string `toml:"client" doc:"Whether devices show a certificate. none: the host doesn't ask. request: a device may have one. require: the host refuses a device without one. The host always checks a certificate that it gets. The default is require if client_ca is set, else none." enum:"none,request,require" example:"\"request\""`
	MinVersion     string `toml:"min_version" doc:"The oldest version of TLS that the host accepts; the default is 1.2." enum:"1.2,1.3" example:"\"1.3\""`
	SessionTickets bool   `toml:"session_tickets" doc:"Whether a device that connects again may resume its TLS session. Then the handshake takes less time, but devices that never resume take more memory. No ticket outlives a change of the files." example:"true"`
	Handshakes     int    `toml:"handshakes" doc:"How many handshakes may compute at the same time; others wait. 0 means half of the CPUs, so that commands don't wait for a fleet that connects again." min:"0" example:"4"`
}

// The values of tls.client.
const (
	clientNone    = "none"
	clientRequest = "request"
	clientRequire = "require"
)

var clientAuth = map[string]tls.ClientAuthType{
	clientNone: tls.NoClientCert, clientRequest: tls.VerifyClientCertIfGiven, clientRequire: tls.RequireAndVerifyClientCert,
}

// client returns the setting client or its default.
func (s *tlsSettings) client() string {
	switch {
	case s.Client != "":
		return s.Client
	case s.ClientCA != "":
		return clientRequire
	default:
		return clientNone
	}
}

// files returns the files by their settings.
func (s *tlsSettings) files() map[string]string {
	files := map[string]string{"tls.cert": s.Cert, "tls.key": s.Key}
	if s.ClientCA != "" {
		files["tls.client_ca"] = s.ClientCA
	}
	return files
}

// validateTLS returns the problems of the table tls and of its files.
func (c *Config) validateTLS() (problems []error) {
	invalid := func(field, format string, args ...any) {
		problems = append(problems, transports.Invalid(field, format, args...))
	}
	user := "" // the setting that needs certificates of devices
	switch {
	case c.Identity.By == byCertificate:
		user = "identity.by"
	case c.Identity.Certificate != "":
		user = "identity.certificate"
	}
	if user != "" && len(c.Connect) > 0 && (c.ConnectTLS == nil || c.ConnectTLS.Insecure) {
		invalid(user, "needs a certificate of each device: set connect_tls, without insecure")
	}
	problems = append(problems, c.validateDialTLS()...)
	s := c.TLS
	switch {
	case user != "" && c.listenAddr() != "" && (s == nil || s.client() != clientRequire):
		invalid(user, "needs a certificate of each device: set tls.client_ca, and tls.client = %q", clientRequire)
	case s == nil:
	case s.client() != clientNone && s.ClientCA == "":
		invalid("tls.client", "%q needs client_ca", s.client())
	case s.client() == clientNone && s.ClientCA != "":
		invalid("tls.client_ca", "isn't used with client = %q", clientNone)
	}
	if s == nil {
		return problems
	}
	missing := false
	for field, file := range s.files() {
		if _, err := os.ReadFile(file); err != nil {
			missing = true
			invalid(field, "%v", err)
		}
	}
	if missing {
		return problems
	}
	if _, err := s.ServerTLS.Config(); err != nil {
		invalid("tls.cert", "%v", err)
	}
	if _, err := s.authorities(); err != nil {
		invalid("tls.client_ca", "%v", err)
	}
	return problems
}

var (
	_ transports.Checker = (*Config)(nil)
	_ transports.Risky   = (*Config)(nil)
)

// Check implements transports.Checker.
func (c *Config) Check(_ context.Context, env transports.Env, _ []transports.TopicUse) []transports.Check {
	if c.TLS == nil {
		return nil
	}
	return []transports.Check{c.TLS.CheckFiles(env.Now())}
}

// Risks implements transports.Risky. An expired certificate isn't an error of the configuration: a
// host that restarts must not lose the devices that don't check the date.
func (c *Config) Risks() map[string]string {
	risks := map[string]string{}
	if risk := c.Auth.risk(); risk != "" {
		risks["auth.url"] = risk
	}
	if c.TLS == nil {
		return risks
	}
	loaded, err := c.TLS.load()
	if err != nil {
		return risks // Validate returns the error
	}
	if expiry := loaded.Certificates[0].Leaf.NotAfter; time.Now().After(expiry) {
		risks["tls.cert"] = fmt.Sprintf("the certificate %s expired at %s", c.TLS.Cert, expiry.Format(time.RFC3339))
	}
	return risks
}

// authorities reads client_ca. It returns nil if client_ca isn't set.
func (s *tlsSettings) authorities() (*x509.CertPool, error) {
	if s.ClientCA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(s.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("reading tls.client_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading tls.client_ca: %s has no PEM certificate", s.ClientCA)
	}
	return pool, nil
}

// load reads the files.
func (s *tlsSettings) load() (*tls.Config, error) {
	c, err := s.ServerTLS.Config()
	if err != nil {
		return nil, err
	}
	if c.ClientCAs, err = s.authorities(); err != nil {
		return nil, err
	}
	if s.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	c.ClientAuth = clientAuth[s.client()]
	c.SessionTicketsDisabled = !s.SessionTickets
	c.DynamicRecordSizingDisabled = true // each call of Write makes one record: see wire.go
	return c, nil
}

// endpointTLS has the current TLS settings of the host: as a server for the connections that it
// accepts, or as a client for those that it dials.
type endpointTLS struct {
	table string // the name of its table
	files []string
	load  func() (*tls.Config, error) // reads the files
	// computing has a place for each handshake that may compute.
	computing chan struct{}
	current   atomic.Pointer[tls.Config]

	mu     sync.Mutex
	failed error // why the newest files aren't used
}

// newListenTLS returns nil without TLS.
func newListenTLS(s *tlsSettings) *endpointTLS {
	if s == nil {
		return nil
	}
	return newEndpointTLS("tls", s.files(), s.load, s.Handshakes)
}

// newEndpointTLS returns settings that aren't loaded yet. handshakes is the setting of that name.
func newEndpointTLS(table string, files map[string]string, load func() (*tls.Config, error), handshakes int) *endpointTLS {
	places := cmp.Or(handshakes, max(1, runtime.GOMAXPROCS(0)/2))
	return &endpointTLS{table: table, files: slices.Sorted(maps.Values(files)), load: load, computing: make(chan struct{}, places)}
}

// reload reads the files. After an error, the previous settings stay in use.
func (t *endpointTLS) reload() error {
	c, err := t.load()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = err
	if err == nil {
		t.current.Store(c)
	}
	return err
}

// note describes what is wrong with the certificate in use, or returns "".
func (t *endpointTLS) note(now time.Time) string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	failed := t.failed
	t.mu.Unlock()
	c := t.current.Load()
	switch {
	case c == nil:
		return ""
	case failed != nil:
		return fmt.Sprintf("the TLS files have changed and can't be used; the ones from before stay in use: %v", failed)
	case len(c.Certificates) > 0 && now.After(c.Certificates[0].Leaf.NotAfter):
		return "the TLS certificate has expired at " + c.Certificates[0].Leaf.NotAfter.Format(time.RFC3339)
	default:
		return ""
	}
}

// watchTLS reads the files again when they change, until the transport is closed.
func (t *transport) watchTLS(side *endpointTLS, files *filewatch.Watch) {
	ticker := time.NewTicker(filewatch.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if files.Changed() {
				t.reloadTLS(side)
			}
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *transport) reloadTLS(side *endpointTLS) {
	if err := side.reload(); err != nil {
		t.env.Logger.Error("reading the TLS files again; the ones from before stay in use", "table", side.table, "err", err)
		return
	}
	attrs := []any{"table", side.table}
	if own := side.current.Load().Certificates; len(own) > 0 {
		attrs = append(attrs, "subject", own[0].Leaf.Subject.String(), "valid_until", own[0].Leaf.NotAfter.Format(time.RFC3339))
	}
	t.env.Logger.Info("the TLS files have changed", attrs...)
}

var (
	errHandshakeLate = errors.New("the TLS handshake didn't end within identity.timeout")
	errNotTLS        = errors.New("the device doesn't speak TLS")
	errHello         = errors.New("the device speaks TLS, and the transport has no table tls")
)

// noCertificate is the text of crypto/tls's error if a device has to show a certificate and shows
// none. That error has no type.
const noCertificate = "tls: client didn't provide a certificate"

// beginTLS makes the TLS handshake. It then starts the goroutine that identifies the device. That
// goroutine has a small stack.
func (c *conn) beginTLS() {
	t := c.transport
	w := &wire{conn: c, computing: c.endpointTLS().computing, handshaking: true}
	if c.target != nil {
		w.tls = tls.Client(w, c.target.clientTLS())
	} else {
		w.tls = tls.Server(w, t.tls.current.Load())
	}
	err := w.tls.Handshake()
	w.leaveSlot()
	// After an error, the buffer has an alert that tells the device why.
	if sent := w.sendAll(); err == nil {
		err = sent
	}
	w.handshaking = false
	switch refusal := refusedHandshake; {
	case err == nil:
		c.wire = w
		t.running.Go(c.beginSession)
	case c.link.Displaced():
		c.refuse(refusedDisplaced, errDisplaced)
	default:
		if unverified := (*tls.CertificateVerificationError)(nil); errors.As(err, &unverified) || err.Error() == noCertificate {
			refusal = refusedCertificate
		}
		c.refuse(refusal, c.handshakeError(w, err))
	}
}

// handshakeError explains the error of a handshake.
func (c *conn) handshakeError(w *wire, err error) error {
	header := tls.RecordHeaderError{}
	switch {
	case c.timedOut.Load():
		err = errHandshakeLate
	case errors.As(err, &header) && header.Conn != nil && c.needsToken():
		err = errNotTLS
	case errors.As(err, &header) && header.Conn != nil:
		err = fmt.Errorf("%w; its first bytes are %q", errNotTLS, header.RecordHeader)
	case w.readErr != nil:
		err = fmt.Errorf("the device closed the connection: %w", w.readErr)
	}
	return fmt.Errorf("TLS handshake: %w", err)
}

// isHello reports whether the first bytes of a connection begin a TLS handshake: a record of the
// type handshake, of a version 3.x.
func isHello(b []byte) bool { return len(b) > 2 && b[0] == 0x16 && b[1] == 3 && b[2] <= 4 }

// certificate returns the verified certificate of the device, or nil.
func (c *conn) certificate() *x509.Certificate {
	if c.wire == nil || c.target != nil && c.transport.config.ConnectTLS.Insecure {
		return nil
	}
	if shown := c.wire.tls.ConnectionState().PeerCertificates; len(shown) > 0 {
		return shown[0]
	}
	return nil
}

// alertSize is the size of an encrypted alert in TLS 1.3: the record's header, the two bytes of
// the alert, the type of the record, and the authentication tag.
const (
	recordHeader = 5
	alertSize    = recordHeader + 2 + 1 + 16
)

// isAlert reports whether the bytes seem to be an encrypted alert and nothing else. In TLS 1.3, a
// record with two bytes of data looks the same.
func isAlert(b []byte) bool { return len(b) == alertSize && b[4] == alertSize-recordHeader }
