package main

import (
	"os"
	"runtime"
)

// ballast is how much memory the garbage collector takes for live that isn't: decision 0011.
const ballast = 16 << 20

// calmCollector keeps the garbage collector of a host with a small heap from running dozens of times a second under load, until the returned function
// is called. It does nothing where the user chose with GOGC.
func calmCollector() (end func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	untouched := make([]byte, ballast)
	return func() { runtime.KeepAlive(untouched) }
}
