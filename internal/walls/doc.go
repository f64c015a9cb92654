// Package walls has the rules by which the packages of this module may import each other, as a
// test:
//
//	cmd -> configs, router and leaf plugins -> contracts -> internal/plugin
//
// A contract is a package that plugin authors import: handlers, transports, transports/device,
// transports/codec, transports/protocol and router/middleware. A leaf is a plugin's own folder
// below one of them. A suite is a package whose name ends in "test"; it checks implementations of
// its contract.
// internal/backoff and internal/outage are for commands, the router, leaves and the rest of
// internal.
package walls
