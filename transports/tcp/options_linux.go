package tcp

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// setOptions sets what bounds the memory and the time that a device which doesn't read can take; 0 leaves it to the kernel.
func setOptions(fd, sendBuffer int, userTimeout time.Duration) error {
	var buffer, timeout error
	if sendBuffer > 0 {
		buffer = os.NewSyscallError("setsockopt SO_SNDBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer))
	}
	if userTimeout > 0 {
		timeout = os.NewSyscallError("setsockopt TCP_USER_TIMEOUT",
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())))
	}
	return errors.Join(buffer, timeout)
}
