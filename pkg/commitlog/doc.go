// Package commitlog is the contract of the commit log: where a hub puts the
// records of its devices, once each, and what it can say afterwards of every
// sequence number.
//
// A log is cut into shards; a device lives in one of them for ever (ShardOf). A
// shard has one Owner at a time, which appends groups of entries: all of a group
// is durable and visible, or none of it. Together with the records a log keeps
// coverage: for each stream the numbers that are in, the numbers that were
// declared lost and why, and the highest number heard of. Coverage is a pure
// fold over the entries (DeviceCoverage.Apply), made visible in the same
// transaction, so that after any crash it says exactly what the records say.
//
// The package promises nothing by itself beyond that fold, its encoding and the
// small tools around it; logtest holds the suite that an implementation must
// pass. It knows no network, no file and no MQTT, apart from topic filters.
package commitlog
