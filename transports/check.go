package transports

import "context"

// Checker is implemented by configurations of transports that connect to something outside the
// host, and can check that without changing anything. Addresses to bind are in [Needs] instead.
type Checker interface {
	// Check returns what it checked and what it found. uses has the topics of the pipelines. Check
	// returns when ctx ends.
	Check(ctx context.Context, env Env, uses []TopicUse) []Check
}

// TopicUse is a topic and how a pipeline uses it.
type TopicUse struct {
	Topic string
	Use   Use
	// Competing is the field Competing of the [Consumer].
	Competing bool
}

// Check is the result of checking one part.
type Check struct {
	// Part is the name of the part, such as "connection" or "topic commands".
	Part string
	// Found says in a few words what exists, or what a start will create.
	Found string
	// Missing says that the part doesn't exist and that a start will create it.
	Missing bool
	// Err is nil if the host can start and use the part. Otherwise it says why the host can't.
	Err error
	// Next says what to do about Err, in a sentence without its full stop. It may be empty.
	Next string
}
