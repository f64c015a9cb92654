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

// peerStateOf gets the state of the peer's end from the kernel.
func peerStateOf(fd int) peerState {
	asked := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(asked, 0)
		switch got := asked[0].Revents; {
		case err == unix.EINTR:
		case got&(unix.POLLERR|unix.POLLHUP) != 0:
			return peerReset
		case got&unix.POLLRDHUP != 0:
			return peerClosed
		default:
			return peerConnected
		}
	}
}

// The kernel measures silence in ticks of up to 10 ms (CONFIG_HZ) and rounds it. So a silence
// under leastSilence counts as none. silenceError is added to a longer silence. Otherwise a device
// could seem to have sent something here after it connected elsewhere.
const (
	leastSilence = 5 * time.Millisecond
	silenceError = 10 * time.Millisecond
)

// silentFor returns for how long nothing has arrived from the peer, neither data nor an
// acknowledgement. An end of stream counts, because it has an acknowledgement, too.
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
