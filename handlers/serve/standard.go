package serve

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// standardFiles returns files for standard input and output that only the protocol uses. After the
// call, standard input is empty for all other code, and everything that other code writes to
// standard output goes to standard error. Other code includes libraries in other languages, and
// programs that the handler starts.
func standardFiles() (in, out *os.File, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("taking standard input and output: %w", err)
		}
	}()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	defer nothing.Close()
	var taken [2]int
	for fd, instead := range map[int]int{0: int(nothing.Fd()), 1: 2} {
		if taken[fd], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return nil, nil, err
		}
		if err = duplicate(instead, fd); err != nil {
			return nil, nil, err
		}
	}
	return os.NewFile(uintptr(taken[0]), "standard input"), os.NewFile(uintptr(taken[1]), "standard output"), nil
}
