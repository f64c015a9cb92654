package chaos

import (
	"fmt"
	"time"
)

// maxReadDelay is how long after the end of a command's time the device may read its line. Between
// the host's last check of the time and the device's record, the line passes a write, a network,
// and two processes that wait for a CPU. All clocks of a run are the same.
const maxReadDelay = time.Second

// judgeExpiry checks when lines were read. Every read counts, also a second one after a kill. If a
// process was frozen, the line may have been on its way before that.
func judgeExpiry(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c := &e.Commands[i]
		if c.TTL == 0 {
			continue
		}
		until := c.Sent.Add(c.TTL)
		for _, place := range e.lives[i].reads {
			read := e.Reads[place].Time
			stood := e.freezes.anyBetween(read.Add(-maxReadDelay), until.Add(maxReadDelay), func(Fault) bool { return true })
			if late := read.Sub(until); late > maxReadDelay && !stood {
				found = append(found, finding{id: c.ID, device: c.Device, what: fmt.Sprintf("the device read it %s after its time was over", late.Round(time.Millisecond))})
				break
			}
		}
	}
	return found
}
