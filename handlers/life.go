package handlers

import "context"

// Starter is implemented by handlers that start something before the first message, such as a
// process.
type Starter interface {
	// Start is called once, before the pipeline takes messages. If it returns an error, the host
	// doesn't start. Close is called in either case.
	Start(ctx context.Context) error
}

// Reporter is implemented by handlers that can notice a fault before a message fails.
type Reporter interface {
	// Health returns nil if the handler works, and otherwise the reason. It doesn't block.
	Health() error
}

// Reloader is implemented by handlers that can change to a new version of something outside the
// host, such as a program, without a stop.
type Reloader interface {
	// Reload returns nil when the new version is in use. After an error the old one still is.
	// Messages are handled during the call.
	Reload(ctx context.Context) error
}
