// Package httpapi is the hub's HTTP API and the Go client for it: health,
// metrics, the devices of a log with what is complete and what is not, and the
// records themselves as resumable NDJSON.
//
// It promises that a response in flight is bounded in memory however slow its
// reader is, that a reader which stops reading is cut off, that every record
// line carries the cursor that resumes after it, and that the OpenAPI document
// it serves names exactly the routes and parameters it answers to. It asks
// nobody for a name: whoever can reach the listener can read the log, so the
// listener belongs on loopback or behind something that authenticates. It
// changes nothing in the log.
package httpapi
