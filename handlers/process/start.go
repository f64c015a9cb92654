package process

import (
	"os"
	"syscall"
)

const (
	killSignal = syscall.SIGKILL
	termSignal = syscall.SIGTERM
)

// signalGroup sends a signal to the process and to everything that it started in its process
// group.
func signalGroup(p *os.Process, s syscall.Signal) {
	_ = syscall.Kill(-p.Pid, s) // an error means that the group has no process any more
}
