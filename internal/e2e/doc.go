// Package e2e tests the binaries as a user runs them: real processes, real
// sockets, real disks, killed in the middle of their work. It has no code of
// its own outside its tests; every scenario ends with the two verifiers.
package e2e
