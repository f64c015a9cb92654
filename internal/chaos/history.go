// Package chaos judges what a host did while brokers, networks, devices and processes around it
// failed.
//
// A run writes a [History]: what was published and confirmed, what devices read, which results and
// events came out, and which faults there were. [Judge] finds every broken promise of
// docs/delivery.md in it, each with the story of its command.
package chaos

import (
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// History is all that is known of one run, as JSON.
type History struct {
	// Seed reproduces the run's faults and commands.
	Seed uint64 `json:"seed"`
	// Queue is the type of the command queue, classic or quorum.
	Queue    string    `json:"queue"`
	Commands []Command `json:"commands"`
	// Reads are the lines that devices read, in order for each device.
	Reads []Read `json:"reads"`
	// Answers are the answers of devices to requests.
	Answers []Answer `json:"answers"`
	// Answering is how the host recognised answers.
	Answering Answering `json:"answering"`
	// Results are the result messages in the order of their queue, repeats included.
	Results []Result `json:"results"`
	// Reports are the messages about groups in the order of their queues, repeats included.
	Reports []GroupReport `json:"reports"`
	// Events are the presence events, in the order of their queue, repeats included.
	Events []Event `json:"events"`
	Faults []Fault `json:"faults"`
	// Stops are the orderly stops of the host.
	Stops []Stop `json:"stops"`
	// SecondHosts are hosts that were started on the host's store while it ran.
	SecondHosts []SecondHost `json:"second_hosts"`
	End         End          `json:"end"`
}

// Command is one command as its publisher knows it. Its line at the device begins with its id. A
// group command counts as one Command per device, all with the same id.
type Command struct {
	ID     string      `json:"id"`
	Device string      `json:"device"`
	Mode   device.Mode `json:"mode"`
	// Number is the command's place in the order of its device, from 1.
	Number int       `json:"number"`
	Sent   time.Time `json:"sent"`
	// Confirmed reports whether the broker confirmed it. An unconfirmed command is undecided: it
	// may be in the queue or not.
	Confirmed bool `json:"confirmed"`
	// Publishes is how often it was published. If it is above 1, the first ones were undecided.
	Publishes int `json:"publishes"`
	// Malformed reports that its body isn't a command, on purpose. It belongs in poison and has no
	// result.
	Malformed bool `json:"malformed,omitempty"`
	// Sets is the setting that it changes, if a newer command for the same setting may supersede
	// it.
	Sets string `json:"sets,omitempty"`
	// Held reports that it is to be held while its device is offline.
	Held bool `json:"held,omitempty"`
	// TTL is how long after Sent the command may be written; 0 is without limit.
	TTL time.Duration `json:"ttl,omitempty"`
	// Expiration is how long after Sent the broker drops the command; 0 is never. The host applies
	// the same time once it has the command.
	Expiration time.Duration `json:"expiration,omitempty"`
	// Group is the name of the group to which it was published.
	Group string `json:"group,omitempty"`
	// WantsAnswer reports that the command is a request.
	WantsAnswer bool `json:"wants_answer,omitempty"`
}

// Read is one line that a device read and recorded on disk.
type Read struct {
	ID     string `json:"id"`
	Device string `json:"device"`
	// Connection counts the device's connections from 1.
	Connection int       `json:"connection"`
	Time       time.Time `json:"time"`
	// Look counts, from 1, how often the device read two connections at once. It is 0 if there was
	// one connection. Lines of one look on two connections may have been written in any order.
	Look int `json:"look,omitempty"`
}

// Answer is a device's answer to a request.
type Answer struct {
	ID         string    `json:"id"`
	Device     string    `json:"device"`
	Connection int       `json:"connection"`
	Text       string    `json:"text"`
	Time       time.Time `json:"time"`
}

// Answering is how the host recognised answers.
type Answering struct {
	// Timeout is how long the host waited.
	Timeout time.Duration `json:"timeout"`
	// Pattern reports that answers repeat a part of their commands. Otherwise the device's next
	// frame was the answer.
	Pattern bool `json:"pattern"`
}

// Result is one message of the result queue.
type Result struct {
	device.Result
	// Body is the message as it was. It distinguishes repeats of one result from two results.
	Body string    `json:"body"`
	Read time.Time `json:"read"`
}

// GroupReport is one message about a group.
type GroupReport struct {
	device.GroupReport
	Read time.Time `json:"read"`
}

// Event is one message of the presence queue.
type Event struct {
	device.Event
	Read time.Time `json:"read"`
}

// Fault is one thing that was done to the run.
type Fault struct {
	Name  string    `json:"name"`
	Begin time.Time `json:"begin"`
	End   time.Time `json:"end"`
	// Killed reports that the host's process ended without a chance to stop.
	Killed bool `json:"killed"`
	// InFlight is how many commands the host may have had in flight then: the prefetch, and half
	// as many held commands.
	InFlight int `json:"in_flight"`
	// Frozen reports that a process that writes or reads was frozen. Everything on its way was
	// delayed by that time.
	Frozen bool `json:"frozen,omitempty"`
	// Cut are the devices whose connections ended without a clean close. For these epochs, `sent`
	// need not mean that the device read the command.
	Cut []string `json:"cut"`
}

// Stop is an orderly stop of the host.
type Stop struct {
	// Started is when the process was started, Begin when it was asked to stop, and End when it
	// had ended.
	Started time.Time `json:"started"`
	Begin   time.Time `json:"begin"`
	End     time.Time `json:"end"`
	Code    int       `json:"code"`
	// Output is what the host wrote to its log and standard error from Begin on.
	Output string `json:"output"`
	// Unrecorded are the commands that this process had begun and whose outcome the ledger didn't
	// have at End.
	Unrecorded []string `json:"unrecorded"`
}

// SecondHost is a host that was started on a store that another host used.
type SecondHost struct {
	// Name is its name in results and events.
	Name  string    `json:"name"`
	Begin time.Time `json:"begin"`
	End   time.Time `json:"end"`
	// First is text that names the host that used the store.
	First string `json:"first"`
	// Output is what it wrote to its log, and what its readiness page said.
	Output string `json:"output"`
}

// DeadLetter is a command that the broker gave up.
type DeadLetter struct {
	ID     string `json:"id"`
	Device string `json:"device"`
	// Reason is RabbitMQ's, such as expired or delivery_limit.
	Reason string    `json:"reason"`
	Read   time.Time `json:"read"`
}

// End is the state after all faults were over and the host had had time to recover.
type End struct {
	// Online are the devices that were connected.
	Online []string `json:"online"`
	// Settled is when presence was compared, at most 30 s after the last fault.
	Settled time.Time `json:"settled"`
	// Unfinished are the ids of ledger rows that were neither confirmed nor removed.
	Unfinished []string `json:"unfinished"`
	// Poison are the ids of messages in the poison queue.
	Poison []string `json:"poison"`
	// DeadLetters are the commands that the broker gave up, in the order of their queue.
	DeadLetters []DeadLetter `json:"dead_letters"`
	// The numbers of goroutines and bytes of heap are the host's, before the load and at the end.
	GoroutinesBefore int    `json:"goroutines_before"`
	Goroutines       int    `json:"goroutines"`
	HeapBefore       uint64 `json:"heap_before"`
	Heap             uint64 `json:"heap"`
}
