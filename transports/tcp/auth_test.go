package tcp

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// The tokens of the tests. They look different in hexadecimal digits and in quotes.
const (
	token1     = "first-token\"1"
	token2     = "second-token\"2"
	wrongToken = "some-other-token\"3"
)

// hashes returns the hashes of tokens.
func hashes(tokens ...string) (all []device.TokenHash) {
	for _, token := range tokens {
		all = append(all, device.HashToken([]byte(token)))
	}
	return all
}

// setTokens changes the tokens of a device.
func (l *listed) setTokens(name string, tokens ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tokens == nil {
		l.tokens = map[string][]device.TokenHash{}
	}
	l.tokens[name] = hashes(tokens...)
}

// byInventory lets a transport check tokens with the inventory.
func byInventory(c *Config) {
	c.Auth = &auth{By: authInventory}
	c.Auth.SetDefaults()
	if c.Protocol == nil {
		c.Identity.By, c.Identity.Pattern = byFirstFrame, `^(?P<device>\S+) ?(?P<token>.*)$`
	}
}

// proving starts a transport whose devices prove their names: lock-1 with token1, and lock-2 with
// token2. lock-3 has no token.
func proving(t *testing.T, change func(*Config)) (*server, *listed) {
	t.Helper()
	known := &listed{}
	known.set("lock-1", "lock-2", "lock-3")
	known.setTokens("lock-1", token1)
	known.setTokens("lock-2", token2)
	s := startWith(t, func(c *Config) {
		if change != nil {
			change(c)
		}
		byInventory(c)
	}, known)
	t.Cleanup(func() { s.showsNo(token1, token2, wrongToken) })
	return s, known
}

// provingTalk is proving with a protocol.
func provingTalk(t *testing.T, change func(*Config)) (*server, *listed) {
	t.Helper()
	return proving(t, func(c *Config) {
		c.Framing, c.Protocol = nil, talkConfig{}
		if change != nil {
			change(c)
		}
	})
}

// showsNo checks that the log and the errors of devices have no part of the tokens.
func (s *server) showsNo(tokens ...string) {
	s.Helper()
	text := s.log.String()
	for _, c := range s.registry.Failures() {
		text += fmt.Sprintf("%+v", c)
	}
	for _, token := range tokens {
		for _, part := range []string{token[:6], token[len(token)-4:], fmt.Sprintf("%x", token[:6])} {
			if strings.Contains(text, part) {
				s.Errorf("%q is shown: %s", part, text)
			}
		}
	}
}

// refusedBecause waits until a number of connections were refused for a reason.
func (s *server) refusedBecause(reason string, want int) {
	s.Helper()
	await.That(s.T, "the refusals are counted", func() (any, bool) {
		n := s.refused(reason)
		return n, n == float64(want)
	})
}

func TestTokensOfTheInventory(t *testing.T) {
	s, _ := proving(t, nil)
	for i, c := range []struct{ says, reason, text string }{
		{"lock-1 " + wrongToken, refusedToken, "the device's token is wrong"},
		{"lock-1 " + token2, refusedToken, "the device's token is wrong"},
		{"lock-1 " + token1 + " ", refusedToken, "the device's token is wrong"},
		{"lock-1 " + token1[:len(token1)-1], refusedToken, "the device's token is wrong"},
		{"lock-1 " + strings.Repeat(token1, 100), refusedToken, "the device's token is wrong"},
		{"lock-1", refusedToken, "the frame that names the device has no token"},
		{"lock-3 " + token1, refusedToken, "the inventory has no token of the device"},
		{"lock-4 " + token1, refusedToken, "the inventory has no token of the device"},
		{" " + token1, refusedAuth, "it doesn't match identity.pattern"},
		{"lo\x01ck-1 " + token1, refusedAuth, hidden},
	} {
		before := s.refused(c.reason)
		d, _ := s.dialAs(i) // one line is logged for each address
		d.say(c.says + "\r\n")
		d.closed()
		s.refusedBecause(c.reason, int(before)+1)
		await.That(t, "the refusal is logged", func() (any, bool) {
			n := strings.Count(s.log.String(), c.text)
			return s.log, n > 0
		})
		if strings.Contains(s.log.String(), "online") || len(s.registry.Sessions()) > 0 {
			t.Errorf("%q has a session", c.says)
		}
	}
	for name, token := range map[string]string{"lock-1": token1, "lock-2": token2} {
		d := s.dial()
		d.say(name + " " + token + "\r\nhello\r\n")
		s.expect(device.Connected, name, "") // the first event: no other device was online
		if got := s.frame(); got != "hello" {
			t.Errorf("got %q", got)
		}
	}
}

// A device has two tokens while its token is being changed. Its session stays when the old one
// ends.
func TestChangingAToken(t *testing.T) {
	s, known := proving(t, nil)
	connect := func(token string) *peer {
		d := s.dial()
		d.say("lock-1 " + token + "\r\n")
		return d
	}
	old := connect(token1)
	s.expect(device.Connected, "lock-1", "")
	known.setTokens("lock-1", token1, token2)
	connect(token2)
	s.expect(device.Disconnected, "lock-1", device.Replaced)
	s.expect(device.Connected, "lock-1", "")
	old.closed()
	old = connect(token1)
	s.expect(device.Disconnected, "lock-1", device.Replaced)
	s.expect(device.Connected, "lock-1", "")
	known.setTokens("lock-1", token2)
	connect(token1).closed()
	s.refusedBecause(refusedToken, 1)
	if w := s.send("lock-1", "open"); w.Fate != device.Sent {
		t.Errorf("%+v", w)
	}
	old.hear("open\r\n")
}

// A stranger who knows the name of a device neither replaces its session nor waits for it. The
// device itself may replace its session, under each policy that lets a proof replace one.
func TestStrangersReplaceNoProvedSession(t *testing.T) {
	for _, policy := range []device.Takeover{device.TakeoverNewest, device.TakeoverAuthenticated, device.TakeoverIdle} {
		t.Run(string(policy), func(t *testing.T) {
			s, _ := proving(t, func(c *Config) { c.Takeover = string(policy) })
			d := s.dial()
			d.say("lock-1 " + token1 + "\r\n")
			s.expect(device.Connected, "lock-1", "")
			const tries = 10
			for i := range tries {
				stranger, _ := s.dialAs(i)
				stranger.say("lock-1 " + wrongToken + "\r\n")
				stranger.closed()
			}
			s.refusedBecause(refusedToken, tries)
			if w := s.send("lock-1", "open"); w.Fate != device.Sent {
				t.Errorf("%+v", w)
			}
			d.hear("open\r\n")
			if policy == device.TakeoverIdle {
				return
			}
			again, _ := s.dialAs(1)
			again.say("lock-1 " + token1 + "\r\n")
			s.expect(device.Disconnected, "lock-1", device.Replaced)
			s.expect(device.Connected, "lock-1", "")
		})
	}
}

func TestWrongTokensCauseABan(t *testing.T) {
	s, _ := proving(t, func(c *Config) { c.PerAddress = perAddress{Refusals: 3, Ban: time.Hour} })
	for range 3 {
		d := s.dial()
		d.say("lock-1 " + wrongToken + "\r\n")
		d.closed()
	}
	s.logged("banning an address")
	s.dial().closed()
	s.refusedBecause("address-banned", 1)
	if n := strings.Count(s.log.String(), "refusing a connection"); n != 1 {
		t.Errorf("%d refusals are logged: %s", n, s.log)
	}
}

// The response to a login says that the device is accepted. So it comes after the check.
func TestTheResponseFollowsTheCheck(t *testing.T) {
	s, _ := provingTalk(t, nil)
	d := s.dial()
	d.say("prove lock-1:" + wrongToken + "\r\n")
	if n, err := d.r.ReadByte(); err == nil {
		t.Errorf("a refused device gets %q", n)
	}
	d = s.dial()
	d.say("beat\r\nprove lock-1:" + token1 + "\r\n")
	d.hear("ONwelcome\r\n")
	s.expect(device.Connected, "lock-1", "")
	for says, reason := range map[string]string{"login lock-1": refusedToken, "pos lock-1:here": refusedToken, "prove lock-1:": refusedToken, "leave": refusedAuth} {
		before := s.refused(reason)
		d := s.dial()
		d.say(says + "\r\n")
		d.closed()
		s.refusedBecause(reason, int(before)+1)
	}
}

// A token is nowhere in what leaves the host: data, events, answers, parts of frames, the log, the
// errors of devices and recordings.
func TestTokensAreShownNowhere(t *testing.T) {
	s, _ := provingTalk(t, func(c *Config) { c.Data.Partial = true })
	r, _ := s.record("lock-1", true)
	for i, says := range []string{
		"odd lock-1 " + token1 + "\r\n", "broken " + token1 + "\r\n", "prove lo\x01ck:" + token1 + "\r\n", "leave " + token1 + "\r\n",
		token1 + strings.Repeat("x", 1<<20), "prove lock-1:" + token1[:8],
	} {
		d, _ := s.dialAs(i)
		_, _ = io.WriteString(d.Conn, says) // it fails if the host has closed the connection
		_ = closeWrite(d.Conn)
		d.closed()
	}
	d := s.dial()
	d.say("prove lock-1:" + token1 + "\r\nhello\r\n")
	d.hear("welcome\r\n")
	e := s.expect(device.Connected, "lock-1", "")
	d.say("prove lock-1:" + token1 + "\r\npos lock-1:x " + token1[:5])
	d.hear("welcome\r\n")
	d.say(token1[5:] + "\r\nodd " + token1 + "\r\n")
	s.logged("the text isn't shown")
	d.say("broken " + token1 + "\r\n")
	d.closed()
	e2 := s.expect(device.Disconnected, "lock-1", device.ProtocolError)
	stars := strings.Repeat("*", len(token1))
	for _, want := range []string{"prove lock-1:" + stars, "hello", "prove lock-1:" + stars, "pos lock-1:x " + token1} {
		if got := s.frame(); got != want {
			t.Errorf("got the data %q, want %q", got, want)
		}
	}
	want := "lock-1, whole false: device: hello\r\nprove lock-1:" + stars + "\r\n"
	got := recorded(t, r)
	if !strings.HasPrefix(got, want) || strings.Contains(got, token1) || strings.Contains(got, token1[:5]) {
		t.Errorf("the recording is %q, want %q and more", got, want)
	}
	if text := fmt.Sprintf("%+v %+v", e, e2); strings.Contains(text, token1[:5]) {
		t.Error(text)
	}
}

// A recording that begins in a session overwrites the token, too. It keeps the bytes at its end.
func TestRecordASessionWithAToken(t *testing.T) {
	s, _ := provingTalk(t, nil)
	d := s.dial()
	d.say("prove lock-1:" + token1 + "\r\n")
	d.hear("welcome\r\n")
	s.expect(device.Connected, "lock-1", "")
	r, _ := s.record("lock-1", false)
	for _, part := range []string{"beat\r\npos lock-1:", token1[:1], "\r\nbeat\r\npos lock-1:" + token1[:4], token1[4:] + " fine\r\nbeat\r\n" + token1[:5]} {
		d.say(part)
		if strings.Contains(part, "beat") {
			d.hear("ON")
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want := "lock-1, whole false: device: beat\r\npos lock-1: host: ON device: f\r\nbeat\r\npos lock-1: host: ON" +
		" device: " + strings.Repeat("*", len(token1)) + " fine\r\nbeat\r\n host: ON device: ***** client_closed"
	if got := recorded(t, r); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// The proof of a carrier is enough for its attached devices, unless they have tokens of their own.
func TestAttachedDevicesWithTokens(t *testing.T) {
	s, known := provingTalk(t, func(c *Config) { c.Identity.Attach, c.Takeover = 10, string(device.TakeoverAuthenticated) })
	d := s.dial()
	d.say("prove lock-1:" + token1 + "\r\npos lock-3:here\r\npos lock-2:there\r\nprove lock-2:" + token2 + "\r\n")
	d.hear("welcome\r\n")
	s.expect(device.Connected, "lock-1", "")
	s.expect(device.Connected, "lock-3", "")
	s.logged("the inventory has a token of the device")
	if s.registry.SessionOf("lock-2") != nil {
		t.Error("a device with a token is attached")
	}
	known.setTokens("lock-2")
	d.say("pos lock-2:there\r\n")
	s.expect(device.Connected, "lock-2", "")
	if _, err := s.Record(t.Context(), "lock-1", false); !errors.Is(err, device.ErrDevice) {
		t.Errorf("a connection with attached devices is recorded: %v", err)
	}
}

// A certificate of another device doesn't help, even with the right token. Without a certificate,
// the token suffices if the transport doesn't require one.
func TestTokenAndCertificate(t *testing.T) {
	onlyTLS(t)
	s, _ := proving(t, func(c *Config) { mutual(c); c.TLS.Client = clientRequest })
	dial := func(name string) *peer { return s.dialTLS(shows(issue(t, pki.ca, name, nil))) }
	d := dial("lock-2")
	d.say("lock-1 " + token1 + "\r\n")
	d.closed()
	s.refusedBecause(refusedCertificate, 1)
	d = dial("lock-1")
	d.say("lock-1 " + wrongToken + "\r\n")
	d.closed()
	s.refusedBecause(refusedToken, 1)
	d = dial("lock-1")
	d.say("lock-1 " + token1 + "\r\n")
	s.expect(device.Connected, "lock-1", "")
	plain := s.dial()
	plain.say("lock-2 " + token2 + "\r\n")
	s.expect(device.Connected, "lock-2", "")
}

func TestAuthNeedsAnInventory(t *testing.T) {
	c := testConfig()
	byInventory(c)
	if got := c.Needs().Inventory; got != `auth.by = "inventory"` {
		t.Errorf("the configuration needs %q", got)
	}
	tr, err := c.New(env(&logBuffer{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Start(t.Context()); !errors.Is(err, errNoInventory) {
		t.Errorf("it starts without: %v", err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// wordless is a protocol without tokens.
type wordless struct{}

func (wordless) Protocol() (protocol.Protocol, error) {
	framing, err := codec.Named("line").New()
	return protocol.Plain(framing), err
}

func TestValidateAuth(t *testing.T) {
	server := func(change func(*auth)) func(*Config) {
		return func(c *Config) {
			byInventory(c)
			c.Auth.By, c.Auth.URL = authHTTP, "https://auth.example.com"
			change(c.Auth)
		}
	}
	for want, change := range map[string]func(*Config){
		"":                              byInventory,
		"auth.by: \"\" is not known":    func(c *Config) { byInventory(c); c.Auth.By = "" },
		"auth.by: \"sql\" is not known": func(c *Config) { byInventory(c); c.Auth.By = "sql" },
		"auth.url: is only used with":   func(c *Config) { byInventory(c); c.Auth.URL = "https://x" },
		"auth.headers: is only used":    func(c *Config) { byInventory(c); c.Auth.Headers = map[string]transports.Secret{"X": "y"} },
		"auth.tls: is only used":        func(c *Config) { byInventory(c); c.Auth.TLS = &transports.TLS{} },
		"identity.pattern: needs a group named token":     func(c *Config) { byInventory(c); c.Identity.Pattern = `^(\S+)$` },
		"another one must be named device":                func(c *Config) { byInventory(c); c.Identity.Pattern = `^(\S+) (?P<token>.*)$` },
		"auth: needs frames with a token":                 func(c *Config) { byInventory(c); c.Identity = identity{By: byAddress, Timeout: time.Second} },
		"protocol: its frames have no token":              func(c *Config) { c.Framing, c.Protocol = nil, wordless{}; byInventory(c) },
		"lets an attached device replace the session":     func(c *Config) { c.Framing, c.Protocol, c.Identity.Attach = nil, talkConfig{}, 1; byInventory(c) },
		"auth.url: is missing":                            server(func(a *auth) { a.URL = "" }),
		"auth.url: isn't an http or https URL":            server(func(a *auth) { a.URL = "ftp://user:hunter2@x" }),
		"auth.headers: \"Host\" is a header":              server(func(a *auth) { a.Headers = map[string]transports.Secret{"Host": "y"} }),
		"auth.headers: the value of \"X\"":                server(func(a *auth) { a.Headers = map[string]transports.Secret{"X": "y\r\n"} }),
		"auth.tls: cert and key":                          server(func(a *auth) { a.TLS = &transports.TLS{Cert: "x"} }),
		"auth.tls: reading tls.ca":                        server(func(a *auth) { a.TLS = &transports.TLS{CA: "missing"} }),
		"auth.timeout: 0s must be":                        server(func(a *auth) { a.Timeout = 0 }),
		"auth.timeout: 1h0m0s must be":                    server(func(a *auth) { a.Timeout = time.Hour }),
		"auth.concurrent: 0 must be":                      server(func(a *auth) { a.Concurrent = 0 }),
		"auth.unreachable: \"allow\" is not known":        server(func(a *auth) { a.Unreachable = "allow" }),
		"auth.cache: needs a time, because auth.unreacha": server(func(a *auth) { a.Unreachable, a.Cache = unreachableCached, 0 }),
	} {
		c := testConfig()
		change(c)
		err := c.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	risky := testConfig()
	server(func(a *auth) { a.URL = "http://auth.example.com" })(risky)
	if got := risky.Risks()["auth.url"]; !strings.Contains(got, "in the clear") {
		t.Errorf("the risk is %q", got)
	}
	for _, url := range []transports.Secret{"http://127.0.0.1:80", "http://localhost", "https://auth.example.com"} {
		server(func(a *auth) { a.URL = url })(risky)
		if got := risky.Risks(); slices.Contains([]string{"auth.url"}, fmt.Sprint(got)) || got["auth.url"] != "" {
			t.Errorf("%s is risky: %v", string(url), got)
		}
	}
}
