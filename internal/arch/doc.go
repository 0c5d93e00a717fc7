// Package arch holds the table of layers and the test that enforces it: an
// import goes down, never up or sideways. It has no code of its own.
package arch
