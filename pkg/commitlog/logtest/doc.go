// Package logtest holds the contract of the commit log as tests, and a small log
// in memory.
//
// Run is the suite that every implementation passes. Mem passes it too; beside
// that it can be told to give Append any outcome that a real log may have, which
// is what makes it useful for testing those who append. Neither says anything
// about speed or about what survives a power cut.
package logtest
