//go:build !linux

package serve

import "golang.org/x/sys/unix"

// duplicate makes fd a duplicate of the descriptor original.
func duplicate(original, fd int) error { return unix.Dup2(original, fd) }
