package tcp

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// setOptions sets what bounds the memory and the time that a device which doesn't read, or isn't read, can take; 0 leaves it to the
// kernel.
func setOptions(fd int, c *Config) error {
	return errors.Join(
		setBuffer(fd, "SO_SNDBUF", unix.SO_SNDBUF, c.SendBuffer),
		setBuffer(fd, "SO_RCVBUF", unix.SO_RCVBUF, c.ReceiveBuffer),
		setUserTimeout(fd, c.UserTimeout),
	)
}

func setBuffer(fd int, name string, option, size int) error {
	if size == 0 {
		return nil
	}
	return os.NewSyscallError("setsockopt "+name, unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, size))
}
