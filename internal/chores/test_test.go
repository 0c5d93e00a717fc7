package main

import (
	"strings"
	"testing"
)

// What a test run says: failures with their output, also of a test that never
// ended, and skips with their reason.
func TestTally(t *testing.T) {
	const run = `{"Action":"output","Package":"m/a","Test":"TestGood","Output":"noise\\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"    a_test.go:7: needs a disk\\n"}
{"Action":"skip","Package":"m/a","Test":"TestSkip"}
{"Action":"output","Package":"m/a","Test":"TestTool","Output":"    a_test.go:8: NOT TESTED: mosquitto is not installed\\n"}
{"Action":"skip","Package":"m/a","Test":"TestTool"}
{"Action":"output","Package":"m/a","Test":"TestBad","Output":"    a_test.go:9: broken\\n"}
{"Action":"fail","Package":"m/a","Test":"TestBad"}
{"Action":"output","Package":"m/a","Test":"TestHangs","Output":"panic: test timed out\\n"}
{"Action":"output","Package":"m/a","Output":"FAIL m/a\\n"}
{"Action":"fail","Package":"m/a","Elapsed":1.5}
not JSON
`
	tl := tally{output: map[string][]string{}}
	var out strings.Builder
	if err := tl.read(strings.NewReader(run), &out); err != nil {
		t.Fatal(err)
	}
	tl.close(&out)
	for _, want := range []string{"a_test.go:9: broken", "panic: test timed out", "FAIL m/a", "m/a TestSkip: needs a disk", "m/a TestTool: NOT TESTED: mosquitto", "1 passed, 1 failed, 2 skipped", "not JSON"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	if tl.missing != 1 {
		t.Errorf("%d tests miss a program, want 1", tl.missing)
	}
	if strings.Contains(out.String(), "noise") {
		t.Error("a test that passed is heard")
	}
}

// A command that only tells of its progress is quiet; one that has a finding,
// or fails, is not.
func TestQuiet(t *testing.T) {
	for script, want := range map[string]bool{"echo downloading >&2": true, "echo finding": false, "echo broken >&2; exit 1": false} {
		var out strings.Builder
		err := quiet(t.Context(), &out, "sh", "-c", script)
		if (err == nil) != want || want == (out.Len() > 0) {
			t.Errorf("%s: %v, says %q", script, err, &out)
		}
	}
}
