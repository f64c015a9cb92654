package listen

import (
	"cmp"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// reserve is how many file descriptors the host keeps for itself. Half of them are for the
	// admin listener. The rest is for listeners, brokers, stores and logs (about 40 in a host with
	// a broker and a SQLite store), for pools of databases, for outgoing requests (64 for each
	// http-request), and for the pipes of plugins (3 for each process).
	reserve = 256
	// RaiseLimit says how people raise the limit of open files.
	RaiseLimit = "raise it with LimitNOFILE= of the systemd unit, or ulimit -n"
)

// OpenFiles returns how many file descriptors the process may have open, or 0 if that isn't known.
// The Go runtime has raised the soft limit to the hard one.
func OpenFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur, math.MaxInt32))
}

// Reserve returns how many of openFiles descriptors the host keeps for itself: 256, but at most
// half.
func Reserve(openFiles int) int { return min(reserve, openFiles/2) }

// AdminShare returns how many connections the admin listener may have.
func AdminShare(openFiles int) int { return Reserve(openFiles) / 2 }

// Shares divides the descriptors that aren't reserved among listeners. wants has how many
// connections each listener wants; 0 means as many as possible. Shares begins with the listener
// that wants the least. Each gets what it wants, but at most an equal part of what is left, and at
// least one.
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
