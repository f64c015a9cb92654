//go:build !linux

package serve

import "golang.org/x/sys/unix"

// replace makes fd another name for what instead is.
func replace(instead, fd int) error { return unix.Dup2(instead, fd) }
