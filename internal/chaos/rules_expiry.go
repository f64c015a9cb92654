package chaos

import (
	"fmt"
	"time"
)

// lateness is how long after a command's time its line may be read: from the host's last look at its clock to the device's record of the line it passes
// a write, a network and two processes' wait for a processor. All clocks of a run are one.
const lateness = time.Second

// inTime judges when lines were read. Each read counts, also a second one after a kill. A process that stood still may have had the line on its way
// before that.
func inTime(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c := &e.Commands[i]
		if c.TTL == 0 {
			continue
		}
		until := c.Sent.Add(c.TTL)
		for _, place := range e.lives[i].reads {
			read := e.Reads[place].Time
			stood := e.stood.any(read.Add(-lateness), until.Add(lateness), func(Fault) bool { return true })
			if late := read.Sub(until); late > lateness && !stood {
				found = append(found, finding{id: c.ID, device: c.Device, what: fmt.Sprintf("the device read it %s after its time was over", late.Round(time.Millisecond))})
				break
			}
		}
	}
	return found
}
