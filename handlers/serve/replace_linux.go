package serve

import "golang.org/x/sys/unix"

// duplicate makes fd a duplicate of the descriptor instead. Some Linux ports have no dup2.
func duplicate(instead, fd int) error { return unix.Dup3(instead, fd, 0) }
