package tcp

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// Config is the `[transport.NAME]` table of type tcp.
type Config struct {
	Listen   *string         `toml:"listen" doc:"Address to listen on, host:port. An empty host (:PORT) or [::] is every IPv4 and IPv6 address; 0.0.0.0 is IPv4 only. The default is :8123, or no address if connect is set." example:"\":8123\""`
	Framing  codec.Config    `toml:"framing" doc:"How the byte stream is cut into frames: a codec. The default is line. If protocol is set, the protocol has the framing."`
	TLS      *tlsSettings    `toml:"tls" doc:"TLS with the devices. The host reads the files again when they change; connections that are open go on."`
	Protocol protocol.Config `toml:"protocol" doc:"How the devices talk: a protocol. It finds the frames, names the devices, answers them, and says which frame answers which command. Without a protocol, framing finds the frames and identity names the devices." example:"{ type = \"rules\", framing = \"line\", rules = [{ match = '^(?P<device>\\d{15}),' }] }"`
	Identity identity        `toml:"identity" doc:"How the host identifies the device of a connection."`
	Allow    string          `toml:"allow" doc:"Which devices may connect: any, or only those that the file of [inventory] lists (known)." enum:"any,known" example:"\"known\""`

	Auth     *auth  `toml:"auth" doc:"How devices prove their names: each has a token, which its frame with its name must contain. The host refuses a device whose token is missing or wrong. With identity.by = first-frame, identity.pattern has a group named token. Otherwise the protocol finds the token. If a device shows a certificate, the certificate must have its name, too." example:"{ by = \"inventory\" }"`
	Takeover string `toml:"takeover" doc:"Which connections may replace the session of their device. newest: any that has sent a byte. idle: none. authenticated: those that have proved who they are; if the session's device hasn't, also others. A session whose device doesn't respond to a TCP probe in 10 s may always be replaced. Other connections wait until the session ends." enum:"newest,idle,authenticated" example:"\"idle\""`

	AllowFrom     []network      `toml:"allow_from" doc:"Networks from which devices may connect. The host closes other connections at once. Behind a balancer, the address in the PROXY header counts. The default is every network." example:"[\"10.0.0.0/8\", \"2001:db8::/32\"]"`
	ProxyProtocol *proxyProtocol `toml:"proxy_protocol" doc:"Load balancers that begin each connection with a PROXY header. The header has the device's address, which the host then uses instead of the balancer's." example:"{ from = [\"10.0.0.5/32\"] }"`
	MaxAcceptRate int            `toml:"max_accept_rate" doc:"Connections a second that the host accepts. Further ones wait in the kernel. Connections that allow_from or per_address refuses don't count. 0 means no limit." min:"0" example:"2000"`
	PerAddress    perAddress     `toml:"per_address" doc:"Limits of each address. An IPv6 address counts as its first 64 bits. Many devices may share the address of their NAT, so all limits are off by default."`

	Connect           []connectTo          `toml:"connect" doc:"Devices that are servers, such as gateways of serial ports. The host dials each of them, and again when the connection has ended." example:"[{ device = \"rtu-7\", addr = \"10.1.2.3:2404\" }]"`
	ConnectTimeout    time.Duration        `toml:"connect_timeout" doc:"How long a dial may take. The TLS handshake has the time of identity.timeout in addition." min:"10ms" max:"5m"`
	ConnectConcurrent int                  `toml:"connect_concurrent" doc:"How many dials may be under way at the same time. Further devices wait for their turn. Those that have failed least often go first." min:"1" max:"10000"`
	Reconnect         transports.Reconnect `toml:"reconnect" doc:"The pauses between attempts to connect to a device of connect. They begin anew when a connection has lasted for max_interval."`
	ConnectTLS        *transports.TLS      `toml:"connect_tls" doc:"TLS with the devices of connect, which are the servers there. The host reads the files again when they change."`

	IdleTimeout     time.Duration `toml:"idle_timeout" doc:"The host disconnects a device that sends nothing for this long, even if the host sends to it. 0 means never." min:"0s" example:"\"5m\""`
	HalfClose       bool          `toml:"half_close" doc:"Whether a device that has closed its sending side still gets commands, until idle_timeout. If false, its session ends." example:"true"`
	WriteTimeout    time.Duration `toml:"write_timeout" doc:"The host disconnects a device if bytes wait for it and the kernel takes none of them for this long." min:"10ms" example:"\"30s\""`
	Keepalive       time.Duration `toml:"keepalive" doc:"After this much silence the kernel starts to probe whether the device still answers. 0 means never." min:"0s" example:"\"1m\""`
	UserTimeout     time.Duration `toml:"user_timeout" doc:"The kernel closes a connection if the device acknowledges no sent bytes for this long (TCP_USER_TIMEOUT, on Linux). 0 means the kernel's default." min:"0s" example:"\"30s\""`
	SendBuffer      int           `toml:"send_buffer" doc:"How much the kernel may keep for a device that doesn't read (SO_SNDBUF, which Linux doubles). A command in this buffer counts as sent. 0 means the kernel's default." unit:"bytes" min:"0" max:"16777216" example:"16384"`
	ReceiveBuffer   int           `toml:"receive_buffer" doc:"How much the kernel may keep from a device until the host reads it (SO_RCVBUF, which Linux doubles). 0 means the kernel's default, which is megabytes." unit:"bytes" min:"0" max:"16777216" example:"65536"`
	MaxConnections  int           `toml:"max_connections" doc:"Most connections at a time; the limit on open files applies, too. A further connection displaces the oldest one whose device isn't known yet. If there is no such connection, the new one is closed. 0 means as many as the limit on open files allows." min:"0" example:"10000"`
	MaxUnidentified int           `toml:"max_unidentified" doc:"Most connections at a time whose device isn't known yet. A further one displaces another: the oldest one of the address with the most such connections." min:"1" example:"4096"`
	NewNames        newNames      `toml:"new_names" doc:"The rate at which devices with new names may connect. A name is new if the inventory doesn't list it and it had no session since the host started. Further such connections are closed at once."`
	MaxFrameRate    int           `toml:"max_frame_rate" doc:"Frames a second that one device may send; 0 means no limit. See flood." min:"0" example:"1000"`
	MaxByteRate     int           `toml:"max_byte_rate" doc:"Bytes a second that one device may send; 0 means no limit. See flood." unit:"bytes" min:"0" example:"65536"`
	Flood           string        `toml:"flood" doc:"What the host does with a device that sends more than max_frame_rate or max_byte_rate. throttle: the host reads from the device no faster than that. Nothing is lost, but the device has to wait when it sends. After flood_timeout the host disconnects it. close: the host disconnects it at once." enum:"throttle,close" example:"\"throttle\""`
	FloodTimeout    time.Duration `toml:"flood_timeout" doc:"How long the host throttles a device without a break before it disconnects it. 0 means without end." min:"0s" example:"\"1m\""`
	QueueLimit      queueLimit    `toml:"queue_limit" doc:"How much may wait for one device. A command beyond that ends as busy."`
	Events          events        `toml:"events" doc:"The topic events, with a message for each device that comes online or goes offline."`
	Data            data          `toml:"data" doc:"The topic data, with a message for each frame that a device sends."`
	Heartbeat       time.Duration `toml:"heartbeat" doc:"Time between two heartbeats of the host in the topic events." min:"100ms" example:"\"10s\""`
}

type identity struct {
	By          string        `toml:"by" doc:"address: the peer's IP address is the device's name. first-frame: the first frame has the name. protocol: the protocol finds the name in a frame. certificate: the device's certificate has the name. The default is protocol if a protocol is set, else address." enum:"address,first-frame,protocol,certificate" example:"\"first-frame\""`
	Certificate string        `toml:"certificate" doc:"Which name of the device's certificate is the name of the device: the common name (cn), or the alternative name of type DNS (san-dns) or URI (san-uri). With by = certificate, the certificate must have one such name, and the default is cn. With another by, the certificate must have the name that by finds; by default the host doesn't compare them." enum:"cn,san-dns,san-uri" example:"\"san-dns\""`
	Data        bool          `toml:"data" doc:"Whether the first frame is published as data, too. Only with by = first-frame." example:"true"`
	Pattern     string        `toml:"pattern" doc:"Regular expression for the first frame. The text that the group named device matches is the device's name; if there is only one group, it needs no name. The text of the group named token is the device's token: see auth. Without a group or a pattern, the whole frame is the name." example:"'^HELLO (\\S+)'"`
	Attach      int           `toml:"attach" doc:"Most devices that may be attached to the device of a connection. A frame that names another device attaches it: it shares the connection. 0 means that such a frame ends the connection. Only with a protocol, and by = protocol or certificate." min:"0" max:"10000" example:"500"`
	Timeout     time.Duration `toml:"timeout" doc:"How long the first frame may take to arrive. With TLS, the handshake counts, too." min:"10ms" example:"\"10s\""`
}

type newNames struct {
	Rate    int `toml:"rate" doc:"New names a second; 0 means no limit." min:"0" example:"100"`
	Burst   int `toml:"burst" doc:"New names that may connect at once." min:"1" example:"1000"`
	AtStart int `toml:"at_start" doc:"Further new names that may connect in the first 10 minutes, counted from the first connection after the host's start. After a start every device is new, so set it above the number of devices." min:"0" example:"50000"`
}

type queueLimit struct {
	Count int `toml:"count" doc:"Frames that may wait for one device." min:"1" example:"1000"`
	Bytes int `toml:"bytes" doc:"Bytes that may wait for one device." unit:"bytes" min:"1" example:"262144"`
}

type events struct {
	Window  int `toml:"window" doc:"The window: how many messages of one pipeline may be unsettled." unit:"messages" min:"1" max:"1000000" example:"1000"`
	Backlog int `toml:"backlog" doc:"If this many events wait for one pipeline, a new event replaces the older ones of its device." unit:"messages" min:"1" example:"10000"`
	Total   int `toml:"total" doc:"Most events that may wait for one pipeline. Beyond it the oldest events are dropped, logged and counted. Only a fleet of about as many devices can reach this limit." unit:"messages" min:"1" example:"1000000"`
}

type data struct {
	Window    int    `toml:"window" doc:"The window: how many messages of one pipeline may be unsettled." unit:"messages" min:"1" max:"1000000" example:"1000"`
	PerDevice int    `toml:"per_device" doc:"Most frames of one device that may wait for one pipeline." unit:"messages" min:"1" example:"100"`
	Total     int    `toml:"total" doc:"Most frames of all devices that may wait for one pipeline." unit:"messages" min:"1" example:"20000"`
	Partial   bool   `toml:"partial" doc:"Whether the bytes of a frame whose end never came are published, with partial = true in the message. If false, the host counts and logs them." example:"true"`
	Overflow  string `toml:"overflow" doc:"What the host does at these limits. block stops reading from the device until there is room. drop-oldest drops the oldest frames and counts them." enum:"block,drop-oldest" example:"\"block\""`
}

var defaults = Config{
	Identity:          identity{Timeout: 10 * time.Second},
	Allow:             allowAny,
	Takeover:          string(device.TakeoverNewest),
	ConnectTimeout:    10 * time.Second,
	ConnectConcurrent: 100,
	Reconnect:         transports.Reconnect{InitialInterval: time.Second, MaxInterval: time.Minute},
	IdleTimeout:       5 * time.Minute,
	WriteTimeout:      30 * time.Second,
	Keepalive:         time.Minute,
	UserTimeout:       30 * time.Second,
	SendBuffer:        16 << 10,
	ReceiveBuffer:     64 << 10,
	MaxUnidentified:   4096,
	PerAddress:        perAddress{Ban: 10 * time.Minute},
	NewNames:          newNames{Rate: 100, Burst: 1000, AtStart: 50_000},
	MaxFrameRate:      1000,
	Flood:             throttle,
	FloodTimeout:      time.Minute,
	QueueLimit:        queueLimit{Count: 1000, Bytes: 256 << 10},
	Events:            events{Window: 1000, Backlog: 10_000, Total: 1_000_000},
	Data:              data{Window: 1000, PerDevice: 100, Total: 20_000, Overflow: block},
	Heartbeat:         10 * time.Second,
}

// The values of enumerations.
const (
	byAddress     = "address"
	byFirstFrame  = "first-frame"
	byProtocol    = "protocol"
	byCertificate = "certificate"
	allowAny      = "any"
	allowKnown    = "known"
	throttle      = "throttle"
	block         = "block"
	dropOldest    = "drop-oldest"
)

// Validate returns all problems of the configuration.
func (c *Config) Validate() error {
	var problems []error
	invalid := func(field, format string, args ...any) {
		problems = append(problems, transports.Invalid(field, format, args...))
	}
	if addr := c.listenAddr(); addr != "" || len(c.Connect) == 0 {
		if err := transports.CheckListen(addr); err != nil {
			invalid("listen", "%v", err)
		}
	}
	problems = append(problems, c.validateConnect()...)
	switch {
	case c.Protocol != nil && c.Framing != nil:
		invalid("framing", "can't be used with a protocol, which has a framing of its own")
	case c.Protocol == nil && c.codec() == nil:
		invalid("framing", "name a codec; this build doesn't have the default, line")
	}
	switch by := c.identifiedBy(); by {
	case byAddress, byProtocol, byCertificate:
		if c.Identity.Pattern != "" {
			invalid("identity.pattern", "is only used with by = %q", byFirstFrame)
		}
		if c.Identity.Data {
			invalid("identity.data", "is only used with by = %q", byFirstFrame)
		}
		if by == byProtocol && c.Protocol == nil {
			invalid("identity.by", "%q needs the setting protocol", by)
		}
	case byFirstFrame:
		if _, err := compilePattern(c.Identity.Pattern); err != nil {
			invalid("identity.pattern", "%v", err)
		}
		if c.Protocol != nil {
			invalid("identity.by", "%q can't be used with a protocol, which names the devices itself", by)
		}
	default:
		invalid("identity.by", "%q is not known; allowed: %s, %s, %s, %s", by, byAddress, byFirstFrame, byProtocol, byCertificate)
	}
	if c.Identity.Attach > 0 && (c.Protocol == nil || !c.namedByFrames()) {
		invalid("identity.attach", "needs a protocol, whose frames name devices, and by = %q or %q", byProtocol, byCertificate)
	}
	problems = append(problems, c.validateTLS()...)
	problems = append(problems, c.validateAuth()...)
	if c.HalfClose && c.IdleTimeout == 0 {
		invalid("half_close", "needs an idle_timeout, which ends the session")
	}
	if c.PerAddress.Refusals > 0 && c.PerAddress.Ban == 0 {
		invalid("per_address.ban", "needs a time, because per_address.refusals is set")
	}
	if c.Data.Total < c.Data.PerDevice {
		invalid("data.total", "%d is less than per_device, %d", c.Data.Total, c.Data.PerDevice)
	}
	if c.Events.Total < c.Events.Backlog {
		invalid("events.total", "%d is less than backlog, %d", c.Events.Total, c.Events.Backlog)
	}
	return errors.Join(problems...)
}

// Needs implements transports.Needer.
func (c *Config) Needs() transports.Needs {
	needs := transports.Needs{Connections: c.connections(), Inventory: c.inventoryUser()}
	if addr := c.listenAddr(); addr != "" {
		needs.Binds = map[string]string{"listen": addr}
	}
	return needs
}

// NamesAnswers implements protocol.AnswerNamer.
func (c *Config) NamesAnswers() string {
	if p, ok := c.Protocol.(protocol.AnswerNamer); ok && p.NamesAnswers() != "" {
		return "protocol, " + p.NamesAnswers()
	}
	return ""
}

// Topic describes one of the two topics, events and data. Pipelines can only consume them.
func (c *Config) Topic(name string, use transports.Use) (transports.Topic, error) {
	if use == transports.Produce {
		return transports.Topic{}, errProduce
	}
	switch name {
	case device.EventsTopic:
		return transports.Topic{Window: c.Events.Window}, nil
	case device.DataTopic:
		return transports.Topic{Window: c.Data.Window}, nil
	}
	hint := ""
	for _, topic := range []string{device.EventsTopic, device.DataTopic} {
		if strings.HasPrefix(strings.ToLower(name), topic[:2]) {
			hint = fmt.Sprintf("; did you mean %q?", topic)
		}
	}
	return transports.Topic{}, fmt.Errorf("there is no topic %q, allowed are %q and %q%s", name, device.EventsTopic, device.DataTopic, hint)
}

var errProduce = errors.New(`a pipeline can't publish to devices; the handler deliver writes commands to them: handler = { type = "deliver", devices = "..." }`)
