package process

import (
	"os"
	"syscall"
)

const (
	killSignal = syscall.SIGKILL
	termSignal = syscall.SIGTERM
)

// killGroup signals a program and all that it started and that stayed in its group.
func killGroup(p *os.Process, s syscall.Signal) {
	_ = syscall.Kill(-p.Pid, s) // an error means that nobody is there any more
}
