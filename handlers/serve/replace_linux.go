package serve

import "golang.org/x/sys/unix"

// replace makes fd another name for what instead is. Some Linux ports have no dup2.
func replace(instead, fd int) error { return unix.Dup3(instead, fd, 0) }
