// Package buffer is the edge's store-and-forward log: an append-only journal of
// fixed-size, recycled segment files that keeps messages on flash from the
// moment a sensor is told so until a commit log has them.
//
// It promises: when Append's callback says nil, the message survives a kill and
// a power cut, under a number that is never used for another one; Next hands
// out only what is synced; a number ends settled or in the loss ledger, never
// nowhere; disk, memory and state are bounded, with eviction or refusal at the
// limit. Disk errors are states, not crashes.
//
// It does not talk to any network, does not compress, and does not know which
// topics belong to which lane. One process opens a directory at a time. The
// bytes on disk are in docs/format/journal.md.
package buffer
