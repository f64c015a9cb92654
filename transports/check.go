package transports

import "context"

// Checker is implemented by configurations of transports that reach something outside the host beside the addresses that it binds ([Needs]), and can look
// whether it is there and lets them in, changing nothing.
type Checker interface {
	// Check returns what it looked at; uses are the topics of the pipelines. It gives up when ctx ends.
	Check(ctx context.Context, env Env, uses []TopicUse) []Check
}

// TopicUse is a topic, and what a pipeline wants of it.
type TopicUse struct {
	Topic string
	Use   Use
	// Competing is that of the [Consumer].
	Competing bool
}

// Check is one thing that was looked at.
type Check struct {
	// Part is what it is, such as "connection" or "topic commands".
	Part string
	// Found says what is there, or what a start will make, in a few words.
	Found string
	// Missing says that it isn't there and that a start will make it.
	Missing bool
	// Err is why a start, or the host after it, wouldn't work; nil if it would.
	Err error
	// Next is what to do about Err, in a sentence without its full stop. It may be empty.
	Next string
}
