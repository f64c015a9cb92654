package tcp

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/device"
)

// Config is the `[transport.NAME]` table of type tcp.
type Config struct {
	Listen   string       `toml:"listen" doc:"Address to listen on, host:port. An empty host (:PORT) or [::] is every IPv4 and IPv6 address; 0.0.0.0 is IPv4 only." example:"\":8123\""`
	Framing  codec.Config `toml:"framing" doc:"How payloads are laid into the stream; the default is line."`
	Identity identity     `toml:"identity" doc:"How a connection's device is known."`
	Allow    string       `toml:"allow" doc:"Whose connections are taken: any device's, or only those of devices that the file of [inventory] lists." enum:"any,known" example:"\"known\""`

	IdleTimeout     time.Duration `toml:"idle_timeout" doc:"A device from which nothing came for so long is disconnected, whatever was sent to it; 0 turns it off." min:"0s" example:"\"5m\""`
	WriteTimeout    time.Duration `toml:"write_timeout" doc:"A device that takes nothing for so long, while something waits for it, is disconnected." min:"10ms" example:"\"30s\""`
	Keepalive       time.Duration `toml:"keepalive" doc:"After so much silence the kernel begins to ask whether the device is still there; 0 turns it off." min:"0s" example:"\"1m\""`
	UserTimeout     time.Duration `toml:"user_timeout" doc:"A device whose kernel acknowledges nothing for so long is disconnected (TCP_USER_TIMEOUT, on Linux); 0 leaves it to the kernel." min:"0s" example:"\"30s\""`
	SendBuffer      int           `toml:"send_buffer" doc:"What the kernel may take for a device that doesn't read (SO_SNDBUF, which Linux doubles): a command in there counts as sent. 0 leaves it to the kernel." unit:"bytes" min:"0" max:"16777216" example:"16384"`
	ReceiveBuffer   int           `toml:"receive_buffer" doc:"What the kernel may keep of a device that isn't read any faster (SO_RCVBUF, which Linux doubles). 0 leaves it to the kernel, which takes megabytes." unit:"bytes" min:"0" max:"16777216" example:"65536"`
	MaxConnections  int           `toml:"max_connections" doc:"Connections at a time, and no more than the limit of open files allows. A further one displaces the oldest whose device isn't known yet; if there is none, it is closed at once. 0 is what the limit of open files allows." min:"0" example:"10000"`
	MaxUnidentified int           `toml:"max_unidentified" doc:"Connections at a time whose device isn't known yet. A further one displaces the oldest of them, of the address that has the most." min:"1" example:"4096"`
	NewNames        newNames      `toml:"new_names" doc:"The rate at which devices with new names may connect. A name is new if the inventory doesn't have it and it had no session since the host started. Further ones are closed at once."`
	MaxFrameRate    int           `toml:"max_frame_rate" doc:"Frames a second that one device may send; 0 is no limit. See flood." min:"0" example:"1000"`
	Flood           string        `toml:"flood" doc:"What happens to a device that sends more than max_frame_rate: throttle reads it no faster than that, so that its own sending stalls and nothing is lost, and disconnects it after flood_timeout; close disconnects it at once." enum:"throttle,close" example:"\"throttle\""`
	FloodTimeout    time.Duration `toml:"flood_timeout" doc:"How long a device may be held back at max_frame_rate without a pause; then it is disconnected. 0 is for ever." min:"0s" example:"\"1m\""`
	QueueLimit      queueLimit    `toml:"queue_limit" doc:"What may wait for one device; a command beyond it ends as busy."`
	Events          events        `toml:"events" doc:"The topic of connects and disconnects."`
	Data            data          `toml:"data" doc:"The topic of what devices send."`
	Heartbeat       time.Duration `toml:"heartbeat" doc:"How often the host says in the topic events that it is there." min:"100ms" example:"\"10s\""`
}

type identity struct {
	By      string        `toml:"by" doc:"address: the peer's IP address is the device. first-frame: the first frame names it, and isn't data." enum:"address,first-frame" later:"certificate" example:"\"first-frame\""`
	Pattern string        `toml:"pattern" doc:"Regular expression for the first frame. Its group named device, else its only group, is the device's name; without a group, or without a pattern, it is the whole frame." example:"'^HELLO (\\S+)'"`
	Timeout time.Duration `toml:"timeout" doc:"How long the first frame may take." min:"10ms" example:"\"10s\""`
}

type newNames struct {
	Rate    int `toml:"rate" doc:"New names a second; 0 is no limit." min:"0" example:"100"`
	Burst   int `toml:"burst" doc:"New names that may come at once." min:"1" example:"1000"`
	AtStart int `toml:"at_start" doc:"Further new names that may come within 10 minutes after the first one since the host started, as then every device is new. Set it above the number of devices." min:"0" example:"50000"`
}

type queueLimit struct {
	Count int `toml:"count" doc:"Frames that may wait for one device." min:"1" example:"1000"`
	Bytes int `toml:"bytes" doc:"Bytes that may wait for one device." unit:"bytes" min:"1" example:"262144"`
}

type events struct {
	Window  int `toml:"window" doc:"Unsettled messages that one pipeline holds." unit:"messages" min:"1" max:"1000000" example:"1000"`
	Backlog int `toml:"backlog" doc:"Events that may wait for one pipeline before only the newest of each device is kept." unit:"messages" min:"1" example:"10000"`
	Total   int `toml:"total" doc:"Events that may wait for one pipeline at all, which so many different devices take; beyond it the oldest are lost, logged and counted." unit:"messages" min:"1" example:"1000000"`
}

type data struct {
	Window    int    `toml:"window" doc:"Unsettled messages that one pipeline holds." unit:"messages" min:"1" max:"1000000" example:"1000"`
	PerDevice int    `toml:"per_device" doc:"Frames of one device that may wait for one pipeline." unit:"messages" min:"1" example:"100"`
	Total     int    `toml:"total" doc:"Frames of all devices that may wait for one pipeline." unit:"messages" min:"1" example:"20000"`
	Overflow  string `toml:"overflow" doc:"At these bounds: block reads the device no further until there is room, drop-oldest loses the oldest frames and counts them." enum:"block,drop-oldest" example:"\"block\""`
}

var defaults = Config{
	Listen:          ":8123",
	Identity:        identity{By: byAddress, Timeout: 10 * time.Second},
	Allow:           allowAny,
	IdleTimeout:     5 * time.Minute,
	WriteTimeout:    30 * time.Second,
	Keepalive:       time.Minute,
	UserTimeout:     30 * time.Second,
	SendBuffer:      16 << 10,
	ReceiveBuffer:   64 << 10,
	MaxUnidentified: 4096,
	NewNames:        newNames{Rate: 100, Burst: 1000, AtStart: 50_000},
	MaxFrameRate:    1000,
	Flood:           throttle,
	FloodTimeout:    time.Minute,
	QueueLimit:      queueLimit{Count: 1000, Bytes: 256 << 10},
	Events:          events{Window: 1000, Backlog: 10_000, Total: 1_000_000},
	Data:            data{Window: 1000, PerDevice: 100, Total: 20_000, Overflow: block},
	Heartbeat:       10 * time.Second,
}

// The words of enumerations.
const (
	byAddress    = "address"
	byFirstFrame = "first-frame"
	allowAny     = "any"
	allowKnown   = "known"
	throttle     = "throttle"
	block        = "block"
	dropOldest   = "drop-oldest"
)

// Validate reports everything that is wrong.
func (c *Config) Validate() error {
	var problems []error
	invalid := func(field, format string, args ...any) {
		problems = append(problems, transports.Invalid(field, format, args...))
	}
	if err := transports.CheckListen(c.Listen); err != nil {
		invalid("listen", "%v", err)
	}
	if c.Framing == nil {
		invalid("framing", "name a codec, as this build has none called line")
	}
	switch c.Identity.By {
	case byAddress:
		if c.Identity.Pattern != "" {
			invalid("identity.pattern", "belongs to by = %q", byFirstFrame)
		}
	case byFirstFrame:
		if _, err := compile(c.Identity.Pattern); err != nil {
			invalid("identity.pattern", "%v", err)
		}
	default:
		invalid("identity.by", "%q is not known; allowed: %s, %s", c.Identity.By, byAddress, byFirstFrame)
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
	return transports.Needs{Binds: map[string]string{"listen": c.Listen}, Connections: c.MaxConnections, Inventory: c.inventoryUser()}
}

// Topic describes a topic. There are two, and both are only consumed.
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

var errProduce = errors.New(`nothing is published to devices; commands go to them through the deliver handler: handler = { type = "deliver", devices = "..." }`)
