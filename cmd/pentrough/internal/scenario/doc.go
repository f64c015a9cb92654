// Package scenario runs the [[test]] tables of a configuration. A test says which messages come
// in, what devices do, how time passes, and what must come out of the host. The host is real, with
// its pipelines, middleware, handlers and ledger. Each transport that connects to something
// outside is replaced by a fake of the same name, so a test needs and touches nothing outside.
//
// Start with [Run]. Package configs decodes the tables.
package scenario
