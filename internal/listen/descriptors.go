package listen

import (
	"cmp"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// reserve is how many descriptors are kept for the host itself. Half of them are for the admin
	// listener. The rest is for listeners, brokers, stores and logs, which are about 40 in a host
	// with a broker and a SQLite store, and for pools of databases, outgoing requests (64 for each
	// http-request) and the pipes of plugins (3 for each process).
	reserve = 256
	// RaiseLimit says how the limit of open files is raised.
	RaiseLimit = "raise it with LimitNOFILE= of the systemd unit, or ulimit -n"
)

// OpenFiles returns how many descriptors the process may have open, 0 if that isn't known. The Go
// runtime has raised the soft limit to the hard one.
func OpenFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur, math.MaxInt32))
}

// Reserve returns how many of the descriptors that a process may open are kept for the host
// itself: 256, but at most half.
func Reserve(openFiles int) int { return min(reserve, openFiles/2) }

// AdminShare returns how many connections the admin listener may have.
func AdminShare(openFiles int) int { return Reserve(openFiles) / 2 }

// Shares divides the descriptors beyond the reserve among listeners. wants are how many
// connections each of them wants, 0 as many as possible. A listener gets what it wants, unless
// that is more than an equal part of what those that want less leave; at least one.
func Shares(openFiles int, wants []int) []int {
	left := openFiles - Reserve(openFiles)
	shares := make([]int, len(wants))
	order := make([]int, len(wants))
	for i := range wants {
		order[i] = i
		if shares[i] = wants[i]; wants[i] == 0 {
			shares[i] = math.MaxInt
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(shares[a], shares[b]) })
	for i, listener := range order {
		shares[listener] = max(1, min(shares[listener], left/(len(order)-i)))
		left -= shares[listener]
	}
	return shares
}
