// Package attack measures what outsiders can do to a host.
//
// `make attacks` starts the host as its users do, and attacks it from 127.0.0.0/8. Then it does
// the same to a bare accept loop: a server without a queue, a registry or a limit. Each has an
// honest device that receives small commands at a steady rate. A table shows memory, the honest
// device's times and the times of /livez.
//
// The host, the bare accept loop and the attacker are processes of their own. The last two run
// this package's test binary; an environment variable chooses the role. To add an attack, add it
// to attacks in list_test.go. Only bounds_test.go states how much memory a host may use.
package attack
