// Package edge assembles the agent on the vehicle: configuration, buffer, HTTP,
// uplink and the sensors' listener, started in this order and stopped in the
// reverse one.
//
// It promises that nothing accepts data before what keeps it is open, that a
// part that fails stops the whole in order, that a stop keeps the backlog, and
// that every reason not to start has its exit code. It moves no message itself.
package edge
