// Package attack measures what outsiders can do to a host. `make attacks` starts the host as its
// users do, attacks it from 127.0.0.0/8, and does the same to a bare accept loop: a server without
// a queue, a registry or a limit. Both have an honest device, which is sent small commands at a
// steady rate. A table shows what became of memory, of the honest device and of /livez.
//
// The host, the bare accept loop and the attacker are processes of their own. The last two are this
// package's test binary, which an environment variable gives its role. To add an attack, add it to
// attacks in list_test.go; what a host may use of memory is stated in bounds_test.go alone.
package attack
