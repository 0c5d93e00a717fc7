// Package ingest is what a hub does with a batch: it admits the batches of many
// devices, trims from them what the log has, commits them in groups, and answers
// each one exactly once.
//
// It promises that a batch is answered Settled only when every number of it is
// in the log or declared lost there, durably; that no number is appended twice,
// whatever devices resend, clone, restore or overlap, whatever the outcome of an
// append was, and whoever owned the shard before; that fifo lanes stay in order
// through refusals; and that a device which finds a log that went back, or
// another one, leaves no number behind that nobody answers for. All it holds is
// bounded, and at each bound devices are asked to come again later.
//
// What edges and the hub learn together of a device's messages outlives their
// connections for a while. It is counted to the byte, has one owner at a time,
// and is never needed: a device that the hub has no room for is served with
// batches that stand for themselves.
//
// It knows no MQTT and no log in particular: connections reach it through
// Connect, Submit and Close, and it speaks to a commitlog.Log. It authenticates
// nobody, and it stores nothing of its own.
//
// The rules are those of the delivery protocol's model: an epoch is never
// guessed at, coverage and what is pending are looked at under one lock per
// device, a session ends with the ownership it began under, and an unknown
// outcome is answered only from coverage that was read after acquiring again.
package ingest
