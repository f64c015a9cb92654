package tcp

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// setOptions sets the socket options that limit the memory and time that a slow device can take.
// An option of 0 isn't set; the kernel's default applies.
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
