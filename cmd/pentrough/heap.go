package main

import (
	"os"
	"runtime"
)

// ballast is the size of an unused allocation. The garbage collector counts it as live memory and
// so runs less often: decision 0011.
const ballast = 16 << 20

// calmCollector keeps the garbage collector from running dozens of times a second when a host with
// a small heap is under load. It lasts until the returned function is called. It does nothing if
// the user has set GOGC.
func calmCollector() (end func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	untouched := make([]byte, ballast)
	return func() { runtime.KeepAlive(untouched) }
}
