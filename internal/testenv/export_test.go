package testenv

// Reserve is reserve.
var Reserve = reservePort

// The constructors, with the function that picks ports.
var (
	NewNodeAt     = newNode
	NewPostgresAt = newPostgres
	NewMySQLAt    = newMySQL
)
