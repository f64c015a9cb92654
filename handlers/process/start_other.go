//go:build !linux

package process

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// setOwnGroup gives the process a process group of its own.
func setOwnGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// widenPipe does nothing: only Linux can change the capacity of a pipe.
func widenPipe(*os.File) {}

// readGroupMemory returns an error: it is implemented only on Linux.
func readGroupMemory(int) (int, error) { return 0, errors.ErrUnsupported }
