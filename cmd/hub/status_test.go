package main

import (
	"strings"
	"testing"

	"github.com/packetboat/packetboat/internal/httpapi"
)

// What is learned is shown once there is something to show.
func TestStatusOfCodec(t *testing.T) {
	var out strings.Builder
	s := httpapi.Status{Codec: httpapi.CodecStatus{TotalBytes: 1 << 30}}
	if err := printStatus(&out, &s); err != nil || strings.Contains(out.String(), "codec") {
		t.Errorf("%v\n%s", err, out.String())
	}
	s.Codec = httpapi.CodecStatus{Sessions: 3, StateBytes: 3 << 19, Kept: 2, KeptBytes: 1 << 18, TotalBytes: 1 << 30, Fresh: 7, Resumed: 5, SelfContained: 9,
		Dropped: map[string]int64{"no_room": 1, "expired": 0}}
	if err := printStatus(&out, &s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"3 sessions learn in 1.5 MiB, 2 are kept for devices that are away in 0.2 MiB, of 1024.0 MiB\n",
		"7 began fresh, 5 were resumed; dropped: no_room 1; 9 batches stood for themselves for want of room\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
