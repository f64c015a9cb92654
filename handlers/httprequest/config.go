package httprequest

import (
	"errors"
	"fmt"
	"maps"
	nethttp "net/http"
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

const description = "Sends each message as a request to `url`. The body of the request is the payload; a " +
	"GET or DELETE has no body.\n\n" +
	"```toml\n" +
	"[pipeline.orders]\n" +
	"from       = \"broker:orders\"\n" +
	"middleware = [\"poison\", \"retry\"]\n" +
	"handler    = { type = \"http-request\", url = \"https://hooks.example.com/orders\", " +
	"headers = { Authorization = \"Bearer ${HOOK_TOKEN}\" } }\n" +
	"to         = \"broker:answers\"\n" +
	"```\n\n" +
	"| metadata | header |\n" +
	"|---|---|\n" +
	"| message_id, else an id that the host gives the message | `Idempotency-Key` |\n" +
	"| correlation_id | `X-Correlation-ID` |\n" +
	"| content_type, content_encoding | `Content-Type`, `Content-Encoding` |\n" +
	"| header.traceparent, header.tracestate | `Traceparent`, `Tracestate` |\n" +
	"| the keys in `forward` | the headers in `forward` |\n\n" +
	"The headers in `headers` are the same for all messages. They replace headers of the " +
	"same name that come from the message. The hook may get a message more than once, for " +
	"example after a lost connection. Then its `Idempotency-Key` is the same.\n\n" +
	"**Output.** With `output = \"response\"` the handler produces one message: the body of " +
	"the answer, with `http.status`, content_type and content_encoding, and the device of " +
	"the original message. With `\"message\"` it sends the message itself on, as " +
	"`passthrough` does, after the hook has handled it. With `\"none\"` it produces nothing. " +
	"If the pipeline has no `to`, the output is the answer to a caller over HTTP; for other " +
	"sources it goes nowhere.\n\n" +
	"**What an answer means.**\n\n" +
	"| answer | the message |\n" +
	"|---|---|\n" +
	"| 2xx | is handled |\n" +
	"| the endpoint can't be reached (name, connection, TLS), or it answers with a status in `outage_status` | waits: the error is *unavailable*. The pipeline pauses, isn't ready, and tries again until the endpoint works. No message is lost or poisoned. `Retry-After` counts, up to a minute |\n" +
	"| no answer within `timeout`, a broken connection, 408, 425 or another 5xx | fails: the error is *retryable*, because the message may be the cause. `retry` waits as long as `Retry-After` says, up to its `max_retry_after` |\n" +
	"| another 4xx, a redirect that isn't followed, more than `max_response` | fails: the error is *permanent* |\n\n" +
	"A pipeline has one hook. If the hook is down, every message would fail, so the " +
	"pipeline pauses. With `on_outage = \"retryable\"` each message fails on its own, `retry` " +
	"counts it, and `poison` stores it. Use this if an old message has no value, or " +
	"together with a `circuit-breaker`.\n\n" +
	"**Where calls may go.** Calls go to the host of `url`. They follow at most `redirects` " +
	"redirects, to the same host and to hosts in `allow`. An entry of `allow` is a name or " +
	"an address, with or without a port, or a network such as `\"10.0.0.0/8\"`. With a method " +
	"other than GET, a redirect by 301, 302 or 303 isn't followed, because it would turn " +
	"the request into a GET without a body. A redirect from https to http isn't followed " +
	"either. The headers in `headers`, except `Content-Type`, and the user in `url` go only " +
	"to the scheme, host and port of `url`.\n\n" +
	"An address that isn't public (loopback, private, link-local and the like) is refused " +
	"at the moment of the connection, whatever name led to it. It is allowed only if `url` " +
	"or `allow` contains it as an address, a network, or `localhost`. So if the name in " +
	"`url` has a private address, `allow` needs that address or its network; the error says " +
	"which.\n\n" +
	"The handler uses no cookies, and no proxy by default. With `proxy = true` it uses the " +
	"proxy from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). That proxy then " +
	"looks up the names, so their addresses aren't checked."

// The values of output.
const (
	outputResponse = "response"
	outputMessage  = "message"
	outputNone     = "none"
)

// The values of on_outage.
const (
	outageUnavailable = "unavailable"
	outageRetryable   = "retryable"
)

// Config is the configuration of http-request.
type Config struct {
	URL          transports.Secret            `toml:"url" doc:"The http or https URL that is called with each message." example:"\"https://hooks.example.com/orders\"" required:"true" schemes:"http,https"`
	Method       string                       `toml:"method" doc:"The request's method." enum:"POST,PUT,PATCH,DELETE,GET"`
	Headers      map[string]transports.Secret `toml:"headers" doc:"Headers of every request." example:"{ Authorization = \"Bearer ${HOOK_TOKEN}\" }"`
	Forward      map[string]string            `toml:"forward" doc:"Headers, each with the metadata key of its value." example:"{ X-Device = \"device\", X-Tenant = \"header.X-Tenant\" }"`
	Timeout      time.Duration                `toml:"timeout" doc:"How long a call may take, including redirects and the answer's body." min:"1ms"`
	Connections  int                          `toml:"connections" doc:"The most requests at a time. Further messages wait." min:"1" max:"10000"`
	Output       string                       `toml:"output" doc:"The output: the answer, the message itself, or nothing." enum:"response,message,none"`
	MaxResponse  int                          `toml:"max_response" doc:"The largest body of an answer. If output is message or none, the body may have any size." unit:"bytes" min:"1" max:"1073741824"`
	OnOutage     string                       `toml:"on_outage" doc:"The kind of error if the endpoint can't be reached, or answers with a status of outage_status. unavailable: the pipeline pauses until the endpoint works. retryable: the message fails." enum:"unavailable,retryable"`
	OutageStatus []int                        `toml:"outage_status" doc:"Statuses that mean that the endpoint doesn't work, not that the message is wrong." example:"[429, 502, 503]"`
	Allow        []string                     `toml:"allow" doc:"Further hosts to which redirects may lead, and addresses and networks that may be called even if they aren't public." example:"[\"eu.hooks.example.com\", \"10.1.0.0/16\"]"`
	Redirects    int                          `toml:"redirects" doc:"The most redirects that are followed for one message." min:"0" max:"10"`
	Proxy        bool                         `toml:"proxy" doc:"Whether to use the proxy from the environment."`
	TLS          *transports.TLS              `toml:"tls" doc:"TLS to the endpoint, if the system's certificate authorities don't suffice."`
}

// defaults returns the default configuration.
func defaults() *Config {
	return &Config{
		Method: nethttp.MethodPost, Timeout: 10 * time.Second, Connections: 64, Output: outputResponse, MaxResponse: 1 << 20, OnOutage: outageUnavailable,
		OutageStatus: []int{nethttp.StatusTooManyRequests, nethttp.StatusBadGateway, nethttp.StatusServiceUnavailable}, Redirects: 3,
	}
}

// Validate returns all problems of the configuration, joined.
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
	for _, err := range transports.CheckHeaders(c.Headers) {
		invalid("headers", "%v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Forward)) {
		if err := transports.CheckHeaderName(name); err != nil {
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

// target parses the URL.
func (c *Config) target() (*url.URL, error) {
	if c.URL == "" {
		return nil, errors.New(`is missing; it is the URL to call, such as "https://hooks.example.com/orders"`)
	}
	u, err := transports.ParseWebURL(c.URL)
	if err != nil {
		return nil, err
	}
	u.Fragment = ""
	return u, nil
}

var _ handlers.Risky = (*Config)(nil)

// Risks warns of credentials that are sent in the clear. It implements handlers.Risky.
func (c *Config) Risks() map[string]string {
	u, err := c.target()
	if err != nil || u.Scheme != schemeHTTP || transports.Loopback(u.Hostname()) {
		return nil
	}
	const inTheClear = "is sent in the clear, as url isn't https and isn't on a loopback address"
	risks := map[string]string{}
	for name := range u.Query() {
		if isCredential(name) {
			risks["url"] = "its parameter " + name + " " + inTheClear
		}
	}
	if u.User != nil {
		risks["url"] = "its user part " + inTheClear
	}
	for name := range c.Headers {
		if isCredential(name) {
			risks["headers."+name] = "it " + inTheClear
		}
	}
	for name := range c.Forward {
		if isCredential(name) {
			risks["forward."+name] = "it " + inTheClear
		}
	}
	return risks
}

// isCredential guesses from the name of a header or parameter whether it contains a credential.
func isCredential(name string) bool {
	name = strings.ToLower(name)
	return name != "idempotency-key" && slices.ContainsFunc([]string{"auth", "cookie", "token", "key", "secret", "passw", "signature", "session", "credential"},
		func(part string) bool { return strings.Contains(name, part) })
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
