package tcp

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func setUserTimeout(fd int, d time.Duration) error {
	if d == 0 {
		return nil
	}
	return os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds())))
}

// hangupOf asks the kernel what the peer has done.
func hangupOf(fd int) hangup {
	asked := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(asked, 0)
		switch got := asked[0].Revents; {
		case err == unix.EINTR:
		case got&(unix.POLLERR|unix.POLLHUP) != 0:
			return resetByPeer
		case got&unix.POLLRDHUP != 0:
			return closedByPeer
		default:
			return connected
		}
	}
}
