// Package audit reads a whole commit log and judges whether it keeps its
// promises: every record once, in order, and coverage that says exactly what the
// records say.
//
// It believes nothing that it can check: numbers are counted from the records,
// and coverage is what they are held against. What retention has deleted, or
// coverage has forgotten, cannot be checked; that is counted and said, never
// waved through. It does not look into payloads: what a sensor sent is known
// only to the sensor (the simulator's receipts judge that).
//
// A log may move while it is read. See Run for what is judged then.
package audit
