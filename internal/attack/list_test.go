package attack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// An attack is what outsiders do to a target for some time.
type attack struct {
	name, does string
	// count is the number of connections, requests or messages.
	count int
	// connections says that the attack holds count connections open.
	connections bool
	run         func(ctx context.Context, a *attacker) error
	// spends are the bounds on what the host may keep because of the attack.
	spends []bound
	// noToken says that the host and the attacker use no token.
	noToken bool
	// extra is added to the end of the host's file. If `validate` refuses it, the attack isn't
	// carried out.
	extra string
	// descriptors is the target's limit of file descriptors. 0 is the usual limit.
	descriptors int
	// byBroker says that the honest commands go to the host through the broker.
	byBroker bool
	// cut says that the broker is down for the host during a part of the attack.
	cut bool
	// restarts says that the target restarts after the attack.
	restarts bool
}

// hello is the first line of a device.
const hello = "HELLO %s\r\n"

const mib = 1 << 20

var attacks = []attack{
	{
		name: "bodies", does: "1,900 HTTP connections with the token send 1 MiB less a little and stop",
		count: 1900, connections: true, run: stalledBodies, spends: []bound{bodies},
	},
	{
		name: "bodies-no-token", does: "the same on a host without a token",
		count: 1900, connections: true, run: stalledBodies, spends: []bound{bodies}, noToken: true,
	},
	{
		name: "held", does: "250 commands with 900 kB of white space are held for offline devices; then the host restarts",
		count: 250, spends: []bound{bodies, inFlight, held}, restarts: true,
		run: func(ctx context.Context, a *attacker) error {
			a.callParallel(ctx, a.Count, func(i int) {
				a.post(ctx, "/commands", padded(fmt.Sprintf(`{"device":"away-%d","cmd":"open","offline":"hold"`, i), 900_000))
			})
			return nil
		},
	},
	{
		name: "big-messages", does: "40 messages of 16 MB come from the broker", count: 40, byBroker: true, spends: []bound{inFlight},
		run: func(ctx context.Context, a *attacker) error {
			return a.publish(ctx, a.Count, func(i int) []byte {
				return padded(fmt.Sprintf(`{"device":"away-%d","cmd":"open"`, i), 16_000_000)
			})
		},
	},
	{
		name: "descriptors", does: "1,500 idle devices under a limit of 1,000 descriptors; the broker goes down and comes back",
		count: 1500, connections: true, descriptors: 1000, byBroker: true, cut: true,
		run: func(ctx context.Context, a *attacker) error {
			a.holdConnections(ctx, a.Devices, a.Count, func(conn net.Conn, i int) error {
				_, err := fmt.Fprintf(conn, hello, fmt.Sprintf("idle-%d", i))
				return err
			})
			return nil
		},
	},
	{
		name: "silent-devices", does: "4,096 device connections from four addresses say nothing", count: 4096, connections: true,
		run: func(ctx context.Context, a *attacker) error {
			a.holdConnections(ctx, a.Devices, 4, silent)
			return nil
		},
	},
	{
		name: "unauthorized", does: "2,000 HTTP connections are answered 401 and stay", count: 2000, connections: true,
		run: func(ctx context.Context, a *attacker) error {
			a.holdConnections(ctx, a.Web, 4, func(conn net.Conn, _ int) error {
				_, err := io.WriteString(conn, "POST /commands HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}")
				return err
			})
			return nil
		},
	},
	{
		name: "silent-web", does: "2,100 HTTP connections say nothing", count: 2100, connections: true,
		run: func(ctx context.Context, a *attacker) error {
			a.holdConnections(ctx, a.Web, 4, silent)
			return nil
		},
	},
	{name: "names", does: "29,000 connections of devices, each with a new name, end at once", count: 29_000, run: newNames},
	{
		name: "matches", does: "100 kB are matched against nested counted repetitions, 8 requests at a time", count: 8, spends: []bound{bodies, made},
		extra: `
[pipeline.filter]
from = "web:/filter"
handler = { type = "expr", when = 'text matches "(a{0,31}){0,31}b"' }
`,
		run: func(ctx context.Context, a *attacker) error {
			return floodFilter(ctx, a, bytes.Repeat([]byte("a"), 100_000))
		},
	},
	{
		name: "reduce", does: "an expression makes a list of 16 million elements, 8 requests at a time", count: 8, spends: []bound{bodies, made},
		extra: `
[pipeline.filter]
from = "web:/filter"
handler = { type = "expr", when = 'len(flatten(reduce(1..24, [#acc, #acc], [0]))) > 0' }
`,
		run: func(ctx context.Context, a *attacker) error { return floodFilter(ctx, a, []byte("{}")) },
	},
	{
		name: "endless-frames", does: "2,000 devices send a frame up to the limit, without an end", count: 2000, connections: true,
		run: func(ctx context.Context, a *attacker) error {
			frame := bytes.Repeat([]byte("x"), frameLimit)
			a.holdConnections(ctx, a.Devices, a.Count, func(conn net.Conn, i int) error {
				_, err := fmt.Fprintf(conn, hello+"%s", fmt.Sprintf("endless-%d", i), frame)
				return err
			})
			return nil
		},
	},
	{
		name: "deaf", does: "200 devices never read, and are sent 500 commands of 3 kB a second", count: 200, connections: true, byBroker: true,
		run: deafDevices, spends: []bound{inFlight},
	},
	{
		name: "silent-admin", does: "2,000 connections to the admin listener say nothing", count: 2000, connections: true,
		run: func(ctx context.Context, a *attacker) error {
			a.holdConnections(ctx, a.Admin, 4, silent)
			return nil
		},
	},
}

func attackNamed(name string) attack {
	for _, a := range attacks {
		if a.name == name {
			return a
		}
	}
	panic("no attack is named " + name)
}

func silent(net.Conn, int) error { return nil }

// padded completes a JSON object with white space until it has a number of bytes.
func padded(object string, size int) []byte {
	body := append([]byte(object), bytes.Repeat([]byte(" "), size-len(object)-1)...)
	return append(body, '}')
}

// stalledBodies sends all of a body except its end.
func stalledBodies(ctx context.Context, a *attacker) error {
	head := "POST /commands HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1048576\r\n"
	if a.Token != "" {
		head += "Authorization: Bearer " + a.Token + "\r\n"
	}
	body := append([]byte(head+"\r\n"), bytes.Repeat([]byte(" "), mib-100)...)
	a.holdConnections(ctx, a.Web, 4, func(conn net.Conn, _ int) error {
		_, err := conn.Write(body)
		return err
	})
	return nil
}

// newNames connects devices that close the connection as soon as the host has registered them.
func newNames(ctx context.Context, a *attacker) error {
	a.begun()
	a.callParallel(ctx, a.Count, func(i int) {
		conn, err := a.dial(ctx, a.Devices, nthAddress(i, 1000))
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, hello, fmt.Sprintf("name-%d", i)); err != nil {
			return
		}
		// A target that refuses the name closes the connection.
		if conn.SetReadDeadline(time.Now().Add(10*time.Millisecond)) == nil && !a.readUntilClosed(conn) {
			a.updateTally(func(t *tally) { t.Closed++ })
		}
	})
	return nil
}

// floodFilter makes Count callers post a body repeatedly to the pipeline with an expression.
func floodFilter(ctx context.Context, a *attacker, body []byte) error {
	a.begun()
	a.callParallel(ctx, a.Count, func(int) {
		for ctx.Err() == nil {
			a.post(ctx, "/filter", body)
		}
	})
	return nil
}

// deafDevices connects devices that never read, and publishes commands for them.
func deafDevices(ctx context.Context, a *attacker) error {
	const commands, size, rate = 5000, 3000, 500
	conns := make([]net.Conn, 0, a.Count)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range a.Count {
		conn, err := a.dial(ctx, a.Devices, nthAddress(i, a.Count))
		if err != nil {
			continue
		}
		conns = append(conns, conn)
		if err := shrinkReceiveBuffer(conn); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(conn, hello, fmt.Sprintf("deaf-%d", i)); err != nil {
			a.updateTally(func(t *tally) { t.Closed++ })
		}
	}
	a.begun()
	cmd := bytes.Repeat([]byte("x"), size)
	next := time.NewTicker(time.Second / rate)
	defer next.Stop()
	return a.publish(ctx, commands, func(i int) []byte {
		<-next.C
		return fmt.Appendf(nil, `{"device":"deaf-%d","cmd":"%s"}`, i%a.Count, cmd)
	})
}
