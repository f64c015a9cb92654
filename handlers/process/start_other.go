//go:build !linux

package process

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup gives a program a process group of its own.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// widen does nothing: a pipe holds what it holds.
func widen(*os.File) {}

// groupMemory can't be told here.
func groupMemory(int) (int, error) { return 0, errors.ErrUnsupported }
