//go:build !linux

package serve

import "golang.org/x/sys/unix"

// duplicate makes fd a duplicate of the descriptor instead.
func duplicate(instead, fd int) error { return unix.Dup2(instead, fd) }
