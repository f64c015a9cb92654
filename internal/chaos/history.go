// Package chaos judges what a host did while brokers, networks, devices and processes failed around it. A run writes a [History]: what a
// publisher sent and which of it was confirmed, what devices read, the results and events that came out, and which faults there were.
// [Judge] reads it and tells every promise of docs/delivery.md that was broken, each with the story of the command it was broken for.
package chaos

import (
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// History is all that is known of one run, as JSON.
type History struct {
	// Seed makes the run's faults and commands again.
	Seed uint64 `json:"seed"`
	// Queue is the type of the command queue, classic or quorum.
	Queue    string    `json:"queue"`
	Commands []Command `json:"commands"`
	// Reads are the lines that devices read, each device's in order.
	Reads []Read `json:"reads"`
	// Answers are what devices said to commands that asked for it.
	Answers []Answer `json:"answers"`
	// Asking is how the host asked.
	Asking Asking `json:"asking"`
	// Results are the result messages, in the order of their queue, repeats included.
	Results []Result `json:"results"`
	// Reports are what was said of groups, in the order of their queues, repeats included.
	Reports []GroupReport `json:"reports"`
	// Events are the presence events, in the order of their queue, repeats included.
	Events []Event `json:"events"`
	Faults []Fault `json:"faults"`
	// Stops are the times when the host was asked to stop in order.
	Stops []Stop `json:"stops"`
	// SecondHosts were started on the host's store while it ran.
	SecondHosts []SecondHost `json:"second_hosts"`
	End         End          `json:"end"`
}

// Command is one command as its publisher knows it. Its line at the device begins with its id. One to a group is as many as there are devices in
// the group, all of the same id.
type Command struct {
	ID     string      `json:"id"`
	Device string      `json:"device"`
	Mode   device.Mode `json:"mode"`
	// Number is its place in the order of its device, from 1.
	Number int       `json:"number"`
	Sent   time.Time `json:"sent"`
	// Confirmed says that the broker has it. Otherwise its publishing is undecided: it may be in the queue or not.
	Confirmed bool `json:"confirmed"`
	// Publishes is how often it was published; above 1 the first were undecided.
	Publishes int `json:"publishes"`
	// Malformed says that it was published as what isn't a command, on purpose: it belongs into poison and has no result.
	Malformed bool `json:"malformed,omitempty"`
	// Sets is what it sets, if it may be superseded: by a newer command to the device that sets the same.
	Sets string `json:"sets,omitempty"`
	// Held says that it is to be held while its device is away.
	Held bool `json:"held,omitempty"`
	// TTL is how long after it was sent it may still be written; 0 is without end.
	TTL time.Duration `json:"ttl,omitempty"`
	// Expiration is how long after it was sent the broker drops it; 0 is never. The host goes on with
	// that time when it has the command.
	Expiration time.Duration `json:"expiration,omitempty"`
	// Group is the name of the group that it was published to.
	Group string `json:"group,omitempty"`
	// Asks says that its device is to answer.
	Asks bool `json:"asks,omitempty"`
}

// Read is one line that a device read and recorded on disk.
type Read struct {
	ID     string `json:"id"`
	Device string `json:"device"`
	// Connection counts the device's connections, from 1.
	Connection int       `json:"connection"`
	Time       time.Time `json:"time"`
	// Look counts the device's looks at two connections at once, from 1; it is 0 if the device
	// had one. What one look finds on two connections may have been written in any order.
	Look int `json:"look,omitempty"`
}

// Answer is what a device said to a command, written as it was.
type Answer struct {
	ID         string    `json:"id"`
	Device     string    `json:"device"`
	Connection int       `json:"connection"`
	Text       string    `json:"text"`
	Time       time.Time `json:"time"`
}

// Asking is how the host knew answers.
type Asking struct {
	// Timeout is how long it waited.
	Timeout time.Duration `json:"timeout"`
	// Pattern says that answers repeat something of their commands. Otherwise whatever the device said next was the answer.
	Pattern bool `json:"pattern"`
}

// Result is one message of the result queue.
type Result struct {
	device.Result
	// Body is the message as it was, to tell repeats of one result from two results.
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

// Fault is something that was done to the run.
type Fault struct {
	Name  string    `json:"name"`
	Begin time.Time `json:"begin"`
	End   time.Time `json:"end"`
	// Killed says that the host's process was ended without a chance to stop.
	Killed bool `json:"killed"`
	// InFlight is how many commands the host could have on their way then: the prefetch, and half of it of those that were held.
	InFlight int `json:"in_flight"`
	// Stood says that a process stood still that was to write or read: what was on its way came as much later.
	Stood bool `json:"stood,omitempty"`
	// Cut are connections of devices that ended without a clean close, by device: for their epochs `sent` need not mean received.
	Cut []string `json:"cut"`
}

// Stop is an orderly stop of the host.
type Stop struct {
	// Started is when its process was started, Begin when the host was asked to stop, and End when its
	// process had ended.
	Started time.Time `json:"started"`
	Begin   time.Time `json:"begin"`
	End     time.Time `json:"end"`
	Code    int       `json:"code"`
	// Said is what the host wrote to its log and to its standard error from Begin on.
	Said string `json:"said"`
	// Unrecorded are the commands that this process had begun, and of which the ledger didn't have at
	// End how they ended.
	Unrecorded []string `json:"unrecorded"`
}

// SecondHost is a host that was started on a store which another one used.
type SecondHost struct {
	// Name is how it calls itself in results and events.
	Name  string    `json:"name"`
	Begin time.Time `json:"begin"`
	End   time.Time `json:"end"`
	// First are words that name the host which used the store.
	First string `json:"first"`
	// Said is what it wrote to its log, and what its readiness page said.
	Said string `json:"said"`
}

// DeadLetter is a command that the broker gave up.
type DeadLetter struct {
	ID     string `json:"id"`
	Device string `json:"device"`
	// Reason is RabbitMQ's, such as expired or delivery_limit.
	Reason string    `json:"reason"`
	Read   time.Time `json:"read"`
}

// End is how things stood after all faults were over and the host had been given its time.
type End struct {
	// Online are the devices that were connected then.
	Online []string `json:"online"`
	// Settled is when presence was looked at, at most 30 s after the last fault.
	Settled time.Time `json:"settled"`
	// Unfinished are the ledger's rows that were neither confirmed nor gone, by id.
	Unfinished []string `json:"unfinished"`
	// Poison are the ids of messages in the poison queue.
	Poison []string `json:"poison"`
	// DeadLetters are the commands that the broker gave up, in the order of their queue.
	DeadLetters []DeadLetter `json:"dead_letters"`
	// Goroutines and Heap (bytes) are the host's, before the load and at the end.
	GoroutinesBefore int    `json:"goroutines_before"`
	Goroutines       int    `json:"goroutines"`
	HeapBefore       uint64 `json:"heap_before"`
	Heap             uint64 `json:"heap"`
}
