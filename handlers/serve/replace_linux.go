package serve

import "golang.org/x/sys/unix"

// duplicate makes fd a duplicate of the descriptor original. Some Linux ports have no dup2.
func duplicate(original, fd int) error { return unix.Dup3(original, fd, 0) }
