// Gnet is a server on gnet that keeps its connections and does nothing else. It is a peer in the
// benchmark of idle devices.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/panjf2000/gnet/v2"
)

// server drops what arrives.
type server struct{ gnet.BuiltinEventEngine }

func (*server) OnTraffic(c gnet.Conn) gnet.Action {
	if _, err := c.Next(-1); err != nil {
		return gnet.Close
	}
	return gnet.None
}

func main() {
	free := make(chan os.Signal, 1)
	signal.Notify(free, syscall.SIGUSR2)
	go func() {
		for range free {
			debug.FreeOSMemory()
			fmt.Println("freed")
		}
	}()
	if err := gnet.Run(&server{}, "tcp://"+os.Args[1], gnet.WithMulticore(true)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
