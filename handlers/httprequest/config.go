package httprequest

import (
	"errors"
	"fmt"
	"maps"
	nethttp "net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "http-request",
		Summary:     "Calls a web hook with each message.",
		Description: description,
		Config:      func() handlers.Config { return defaults() },
	})
}

const description = "Sends each message as a request to `url`: the body is the payload, but for GET and DELETE, which have none.\n\n" +
	"```toml\n" +
	"[pipeline.orders]\n" +
	"from       = \"broker:orders\"\n" +
	"middleware = [\"poison\", \"retry\"]\n" +
	"handler    = { type = \"http-request\", url = \"https://hooks.example.com/orders\", headers = { Authorization = \"Bearer ${HOOK_TOKEN}\" } }\n" +
	"to         = \"broker:answers\"\n" +
	"```\n\n" +
	"| metadata | header |\n|---|---|\n" +
	"| message_id, else an id that the host gives the message | `Idempotency-Key` |\n" +
	"| correlation_id | `X-Correlation-ID` |\n" +
	"| content_type, content_encoding | `Content-Type`, `Content-Encoding` |\n" +
	"| header.traceparent, header.tracestate | `Traceparent`, `Tracestate` |\n" +
	"| what `forward` names | as it says |\n\n" +
	"`headers` are the same for all messages, and come before those of the message. The hook may get a message more than once, as after a lost connection: the `Idempotency-Key` is then the same.\n\n" +
	"**What is produced.** With `output = \"response\"`, one message: the answer's body, with `http.status`, content_type and content_encoding, and the device of the message. With `\"message\"` the message itself is sent on, " +
	"as `passthrough` does, once the hook has taken it; with `\"none\"` nothing. Without a `to` what is produced is the answer to a caller over HTTP, and otherwise goes nowhere.\n\n" +
	"**What an answer means.**\n\n" +
	"| answer | the message |\n|---|---|\n" +
	"| 2xx | is handled |\n" +
	"| none: the endpoint can't be reached (name, connection, TLS), or a status of `outage_status` | waits: *unavailable*. The pipeline pauses, is not ready, and tries again until it works; nothing is lost or poisoned. `Retry-After` counts, up to a minute |\n" +
	"| none within `timeout`, the connection breaks, 408, 425 or another 5xx | *retryable*: the message may be the cause. `retry` waits as long as `Retry-After` says, up to its `max_retry_after` |\n" +
	"| another 4xx, a redirect that isn't followed, more than `max_response` | *permanent* |\n\n" +
	"A pipeline has one hook, and when that is down every message fails: so it pauses. `on_outage = \"retryable\"` has such messages fail one by one instead, `retry` count them and `poison` keep them: for messages that are worth " +
	"nothing later, or with a `circuit-breaker`.\n\n" +
	"**Where calls go.** To the host of `url`, and by redirects, of which at most `redirects` are followed, to hosts that `allow` lists: a name or an address, with a port or without, or a network such as `\"10.0.0.0/8\"`. A redirect by 301, 302 " +
	"or 303 would turn a POST into a GET without a body, and isn't followed; nor is one from https to http. `headers` but `Content-Type`, and the user of `url`, go to the scheme, host and port of `url` only.\n\n" +
	"An address that isn't a public one (loopback, private, link-local and the like) is refused when the connection is made, whatever name led there, unless `url` or `allow` spells it, as an address, a network, or `localhost`. " +
	"So a name in `url` that has a private address needs the address or its network in `allow`; the error says which. Neither cookies nor a proxy are used; with `proxy = true` the one that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, " +
	"`NO_PROXY`), which then decides what a name's address is."

// What output says.
const (
	outputResponse = "response"
	outputMessage  = "message"
	outputNone     = "none"
)

// What on_outage says.
const (
	outageUnavailable = "unavailable"
	outageRetryable   = "retryable"
)

// Config is the configuration of http-request.
type Config struct {
	URL          transports.Secret            `toml:"url" schemes:"http,https" doc:"Where each message goes: an http or https URL." example:"\"https://hooks.example.com/orders\"" required:"true"`
	Method       string                       `toml:"method" doc:"The request's method." enum:"POST,PUT,PATCH,DELETE,GET"`
	Headers      map[string]transports.Secret `toml:"headers" doc:"Headers of every request." example:"{ Authorization = \"Bearer ${HOOK_TOKEN}\" }"`
	Forward      map[string]string            `toml:"forward" doc:"Headers with the metadata that they get their values from." example:"{ X-Device = \"device\", X-Tenant = \"header.X-Tenant\" }"`
	Timeout      time.Duration                `toml:"timeout" doc:"How long a request may take, with its redirects and the answer's body." min:"1ms"`
	Connections  int                          `toml:"connections" doc:"Requests at a time; further messages wait." min:"1" max:"10000"`
	Output       string                       `toml:"output" doc:"What is produced: the answer, the message itself, or nothing." enum:"response,message,none"`
	MaxResponse  int                          `toml:"max_response" doc:"The largest body of an answer; with output message or none it isn't looked at." unit:"bytes" min:"1" max:"1073741824"`
	OnOutage     string                       `toml:"on_outage" doc:"The kind of error when the endpoint can't be reached or says so: unavailable pauses the pipeline until it works, retryable counts against the message." enum:"unavailable,retryable"`
	OutageStatus []int                        `toml:"outage_status" doc:"Statuses that say that the endpoint doesn't work at the moment, whatever the message." example:"[429, 502, 503]"`
	Allow        []string                     `toml:"allow" doc:"Hosts beside that of url to which redirects may lead, and addresses and networks that may be called though they aren't public." example:"[\"eu.hooks.example.com\", \"10.1.0.0/16\"]"`
	Redirects    int                          `toml:"redirects" doc:"How many redirects are followed for one message." min:"0" max:"10"`
	Proxy        bool                         `toml:"proxy" doc:"Use the proxy that the environment names."`
	TLS          *transports.TLS              `toml:"tls" doc:"TLS to the endpoint, if the system's authorities aren't enough."`
}

// defaults returns a configuration with every default set.
func defaults() *Config {
	return &Config{
		Method: nethttp.MethodPost, Timeout: 10 * time.Second, Connections: 64, Output: outputResponse, MaxResponse: 1 << 20, OnOutage: outageUnavailable,
		OutageStatus: []int{nethttp.StatusTooManyRequests, nethttp.StatusBadGateway, nethttp.StatusServiceUnavailable}, Redirects: 3,
	}
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	invalid := func(field, format string, args ...any) {
		errs = append(errs, handlers.Invalid(field, format, args...))
	}
	if _, err := c.target(); err != nil {
		invalid("url", "%v", err)
	}
	if methods := []string{"POST", "PUT", "PATCH", "DELETE", "GET"}; !slices.Contains(methods, c.Method) {
		invalid("method", "is %q, must be one of %s", c.Method, strings.Join(methods, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if err := checkName(name); err != nil {
			invalid("headers", "%q %v", name, err)
		} else if !fitsHeader(string(c.Headers[name])) {
			invalid("headers", "the value of %q has a line end or another control character", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Forward)) {
		if err := checkName(name); err != nil {
			invalid("forward", "%q %v", name, err)
		} else if c.Forward[name] == "" {
			invalid("forward", "%q names no metadata", name)
		}
	}
	if c.Timeout < time.Millisecond {
		invalid("timeout", "is %v, must be at least 1ms", c.Timeout)
	}
	if c.Connections < 1 {
		invalid("connections", "is %d, must be at least 1", c.Connections)
	}
	if !slices.Contains([]string{outputResponse, outputMessage, outputNone}, c.Output) {
		invalid("output", "is %q, must be response, message or none", c.Output)
	}
	if c.MaxResponse < 1 {
		invalid("max_response", "is %d, must be at least 1", c.MaxResponse)
	}
	if c.OnOutage != outageUnavailable && c.OnOutage != outageRetryable {
		invalid("on_outage", "is %q, must be unavailable or retryable", c.OnOutage)
	}
	for _, status := range c.OutageStatus {
		if status < 400 || status > 599 {
			invalid("outage_status", "%d is not from 400 to 599", status)
		}
	}
	for i, entry := range c.Allow {
		if _, err := readPlace(entry); err != nil {
			invalid(fmt.Sprintf("allow[%d]", i), "%v", err)
		}
	}
	if c.Redirects < 0 {
		invalid("redirects", "is %d, must be at least 0", c.Redirects)
	}
	return errors.Join(append(errs, c.TLS.Validate())...)
}

// target reads the URL.
func (c *Config) target() (*url.URL, error) {
	if c.URL == "" {
		return nil, errors.New(`is missing; it says where each message goes, such as "https://hooks.example.com/orders"`)
	}
	u, err := url.Parse(string(c.URL))
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL
		}
		return nil, fmt.Errorf("is no URL: %w", err)
	}
	if u.Scheme != schemeHTTP && u.Scheme != schemeHTTPS || u.Hostname() == "" {
		return nil, errors.New("is no http or https URL with a host, such as \"https://hooks.example.com/orders\"")
	}
	u.Fragment = ""
	return u, nil
}

var _ handlers.Risky = (*Config)(nil)

// Risks implements handlers.Risky: what proves who calls shouldn't be sent in the clear.
func (c *Config) Risks() map[string]string {
	u, err := c.target()
	if err != nil || u.Scheme != schemeHTTP || transports.Loopback(u.Hostname()) {
		return nil
	}
	const inTheClear = "is sent in the clear, as url isn't https and isn't on a loopback address"
	risks := map[string]string{}
	for name := range u.Query() {
		if proves(name) {
			risks["url"] = "its parameter " + name + " " + inTheClear
		}
	}
	if u.User != nil {
		risks["url"] = "its user part " + inTheClear
	}
	for name := range c.Headers {
		if proves(name) {
			risks["headers."+name] = "it " + inTheClear
		}
	}
	for name := range c.Forward {
		if proves(name) {
			risks["forward."+name] = "it " + inTheClear
		}
	}
	return risks
}

// proves guesses by the name of a header or a parameter whether it proves who calls.
func proves(name string) bool {
	name = strings.ToLower(name)
	return name != "idempotency-key" && slices.ContainsFunc([]string{"auth", "cookie", "token", "key", "secret", "passw", "signature", "session", "credential"},
		func(part string) bool { return strings.Contains(name, part) })
}

// reserved are headers that belong to the connection, or are made of the URL and the body.
var reserved = []string{
	"Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func checkName(name string) error {
	switch {
	case name == "" || strings.ContainsFunc(name, notInToken):
		return errors.New("can't be a header's name")
	case slices.Contains(reserved, textproto.CanonicalMIMEHeaderKey(name)):
		return errors.New("is a header that the host sets itself")
	}
	return nil
}

// notInToken reports whether a rune may not stand in a header's name (RFC 9110, 5.6.2).
func notInToken(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

// fitsHeader reports whether a text can be a header's value.
func fitsHeader(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	target, err := c.target()
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	allowed, err := newPlaces(target, c.Allow)
	if err != nil {
		return nil, err
	}
	h := &hook{
		config: *c, env: env, url: target, places: allowed, slots: make(chan struct{}, c.Connections), answers: newAnswers(),
		client: client{config: *c, places: allowed},
	}
	if err := env.Registerer.Register(h.answers); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return h, nil
}
