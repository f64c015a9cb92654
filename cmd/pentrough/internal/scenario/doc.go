// Package scenario runs the tests of a configuration, its [[test]] tables: what comes in, what devices do, how time passes, and what is expected
// of the host then. The host is the real one, with its pipelines, middleware, handlers and ledger; in place of each transport that reaches
// outside stands a fake of its name, so that nothing is needed and nothing is touched.
//
// Start with [Run]. The tables themselves are decoded by package configs.
package scenario
