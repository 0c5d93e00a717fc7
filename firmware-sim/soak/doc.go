// Package soak lets honest sensors work beside hostile clients while the edge
// is killed and started again, and then proves that nothing that was
// acknowledged is missing or double.
//
// It promises to end every process that it started, on every path, and to fail
// when the edge ends by itself, grows beyond its memory, leaves honest clients
// without service, or lets a hostile behaviour pass without a counter that says
// so. It measures no speed: the machine is shared with everything it starts.
package soak
