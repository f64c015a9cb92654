package handlers

import "context"

// Starter is implemented by handlers that need something to run before the first message, such as a process.
type Starter interface {
	// Start is called once, before the pipeline takes messages. An error is that of the host's start. Close is called in any case.
	Start(ctx context.Context) error
}

// Reporter is implemented by handlers that may be out of order while no message fails.
type Reporter interface {
	// Health returns nil if the handler works, otherwise why it doesn't. It doesn't block.
	Health() error
}

// Reloader is implemented by handlers that take what is new outside of the host without a stop, such as another version of a program.
type Reloader interface {
	// Reload returns when the new is at work, or with an error and the old still at work. Messages are handled meanwhile.
	Reload(ctx context.Context) error
}
