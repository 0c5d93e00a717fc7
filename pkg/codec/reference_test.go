package codec_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
)

// A decoder that shares nothing with this package decodes the golden vectors to
// the same records, digests and sizes of the state: docs/format/link-codec.md,
// from which it was written, says all that a decoder must know.
func TestReferenceDecoder(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("NOT TESTED: the reference decoder needs python3: ", err)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "golden", "*.ndjson"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden vectors (%v)", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			vectors, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			decode := exec.CommandContext(t.Context(), python, "-B", filepath.Join("testdata", "reference", "decode.py"), file)
			var stderr bytes.Buffer
			decode.Stderr = &stderr
			decoded, err := decode.Output()
			if err != nil {
				t.Fatalf("%v:\n%s", err, &stderr)
			}
			got, want := decodedLines(t, decoded), decodedLines(t, vectors)
			for i := range min(len(got), len(want)) {
				if !reflect.DeepEqual(got[i], want[i]) {
					t.Fatalf("line %d is\n%v,\nwant\n%v", i+1, got[i], want[i])
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d lines, want %d", len(got), len(want))
			}
		})
	}
}

// decodedLines are lines of vectors without what only the decoder is told.
func decodedLines(t *testing.T, b []byte) (lines []map[string]any) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // times are of 64 bits
	for d.More() {
		line := map[string]any{}
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		delete(line, "body")
		delete(line, "seed")
		lines = append(lines, line)
	}
	return lines
}
