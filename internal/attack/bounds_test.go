package attack

import "time"

// The requirements on a host under attack. No other file states them.
const (
	// maxLivez is the longest time that /livez may take.
	maxLivez = time.Second
	// p99Factor is the factor by which the p99 of an honest device may grow.
	p99Factor = 2
)

// bound is how much memory a host may use for one purpose, and the setting that limits it.
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

// The memory that the host may use in addition to the bytes that a bound counts.
const (
	// baseMiB is twice the floor under the heap (decision 0011).
	baseMiB = 64
	// connectionKiB is the memory of each connection of the attack: stacks, buffers, and a frame
	// without an end.
	connectionKiB = 32
	// collectorFactor is the factor by which the heap may grow before the garbage collector runs.
	collectorFactor = 2
)

// allowedMiB returns how much the host's memory may grow under an attack.
func allowedMiB(connections int, bounds []bound) float64 {
	mib := baseMiB + float64(connections)*connectionKiB/1024
	for _, b := range bounds {
		mib += collectorFactor * b.mib
	}
	return mib
}
