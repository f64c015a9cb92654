package testenv

// The constructors, with the function that picks ports.
var (
	NewNodeAt     = newNode
	NewPostgresAt = newPostgres
	NewMySQLAt    = newMySQL
)
