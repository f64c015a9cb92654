//go:build unix && !linux

package tcp

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// setOptions sets what bounds the memory that a device which doesn't read can take; 0 leaves it to the kernel. There is no
// TCP_USER_TIMEOUT here: the write timeout and keepalive do its work.
func setOptions(fd, sendBuffer int, _ time.Duration) error {
	if sendBuffer == 0 {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_SNDBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer))
}
