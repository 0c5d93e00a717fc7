// Package local is the embedded commit log: records and coverage in a Badger
// store in one directory of one machine.
//
// It keeps the contract of pkg/commitlog: what Append said nil to is synced, a
// group is there as a whole or not at all, coverage is changed in the same
// transaction as the records. Blocks of records are found by offset, by device
// and by time. Retention deletes the oldest records, never coverage. The log
// notices when its directory has been copied or brought back from a backup, and
// takes a new incarnation.
//
// It serves one process at a time and needs a 64-bit system. It does not
// replicate: what the disk loses is lost. The bytes are in docs/format/log.md.
package local
