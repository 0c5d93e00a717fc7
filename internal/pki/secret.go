// Package pki holds what proves who somebody is: generated secrets, the files
// in which they are kept as hashes, and TLS configurations read from files,
// with the authorities and revocation lists by which clients are judged.
//
// It promises that a secret is never written down, that comparing takes the
// same time whatever is wrong, that users and certificates follow their files
// without a restart, and that a file that cannot be read leaves the last good
// state in force. It issues no certificates and knows no password hashes:
// secrets are 256 random bits, which need no slow hash.
package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
)

// secretBytes is the size of a generated secret: 256 bits.
const secretBytes = 32

// Sum is the SHA-256 of a secret.
type Sum [sha256.Size]byte

// NewSecret draws a secret of 43 characters [A-Za-z0-9_-] and gives the hash to
// keep of it.
func NewSecret() (text string, sum Sum) {
	var raw [secretBytes]byte
	_, _ = rand.Read(raw[:]) // crypto/rand.Read never fails
	text = base64.RawURLEncoding.EncodeToString(raw[:])
	return text, HashSecret([]byte(text))
}

// HashSecret gives the hash to keep of a secret.
func HashSecret(secret []byte) Sum { return sha256.Sum256(secret) }

// Matches reports whether secret has hash s, in a time that does not depend on
// how much of it is right.
func (s Sum) Matches(secret []byte) bool {
	other := HashSecret(secret)
	return subtle.ConstantTimeCompare(s[:], other[:]) == 1
}

const sumPrefix = "sha256:"

// String gives "sha256:" and 64 hexadecimal digits.
func (s Sum) String() string { return sumPrefix + hex.EncodeToString(s[:]) }

// ParseSum reads what String gives.
func ParseSum(text string) (s Sum, err error) {
	digits, ok := strings.CutPrefix(text, sumPrefix)
	if !ok || len(digits) != 2*len(s) {
		return s, errors.New("want sha256: and 64 hexadecimal digits")
	}
	if _, err = hex.Decode(s[:], []byte(digits)); err != nil {
		return s, errors.New("want sha256: and 64 hexadecimal digits")
	}
	return s, nil
}

// maxSecretFile bounds a file that holds one secret, in bytes.
const maxSecretFile = 4096

// ReadSecret reads a secret from a file of its own: one line, white space
// around it dropped.
func ReadSecret(path string) ([]byte, error) {
	data, err := readBounded(path, maxSecretFile)
	if err != nil {
		return nil, fmt.Errorf("read the secret: %w", err)
	}
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return nil, fmt.Errorf("read the secret: %s is empty", path)
	case strings.ContainsAny(text, "\r\n\x00"):
		return nil, fmt.Errorf("read the secret: %s has more than one line", path)
	}
	return []byte(text), nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}
