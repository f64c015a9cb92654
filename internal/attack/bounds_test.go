package attack

import "time"

// What a host under attack is asked to keep. This is the one place that states it.
const (
	// livezWithin is the longest that /livez may take.
	livezWithin = time.Second
	// p99Factor is by how much the p99 of an honest device may grow.
	p99Factor = 2
)

// bound is a limit of memory: how much a host may keep for one purpose, and which setting says so.
type bound struct {
	setting string
	mib     float64
}

// The bounds of the host, with their defaults.
var (
	bodies   = bound{"[host] memory.bodies", 64}
	inFlight = bound{"[host] memory.in_flight", 128}
	held     = bound{"[host] memory.held", 128}
	made     = bound{"internal/expression: strings that an expression makes", 64}
)

// What the host may use beside the bytes that a bound counts.
const (
	// baseMiB is the floor under the heap (decision 0011) and as much again.
	baseMiB = 64
	// connectionKiB is for each connection of the attack: stacks, buffers, and a frame without an
	// end.
	connectionKiB = 32
	// collectorFactor is how far the heap may grow before the garbage collector has run.
	collectorFactor = 2
)

// allowedMiB returns by how much the host's memory may grow under an attack.
func allowedMiB(connections int, bounds []bound) float64 {
	mib := baseMiB + float64(connections)*connectionKiB/1024
	for _, b := range bounds {
		mib += collectorFactor * b.mib
	}
	return mib
}
