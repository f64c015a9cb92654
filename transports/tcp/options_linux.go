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

// The kernel counts silence in ticks of up to 10 ms (CONFIG_HZ), rounded: less than leastSilence is none, and silenceError is added, so that a device which
// went elsewhere is not thought to have been heard after that.
const (
	leastSilence = 5 * time.Millisecond
	silenceError = 10 * time.Millisecond
)

// silentFor asks the kernel for how long nothing has come from the peer: no data, and no acknowledgement, which the end of its stream has, too.
func silentFor(fd int) time.Duration {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	silent := time.Duration(min(info.Last_data_recv, info.Last_ack_recv)) * time.Millisecond
	if silent < leastSilence {
		return 0
	}
	return silent + silenceError
}
