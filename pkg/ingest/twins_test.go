package ingest

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// One edge, however often it starts anew and connects, is never taken for two;
// two that take turns are seen at the first return, and at each one after it.
func TestLives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var one lives
		e := stream.NewEpoch()
		for range rapid.IntRange(1, 50).Draw(t, "connections") {
			if rapid.Bool().Draw(t, "new epoch") {
				e = stream.NewEpoch()
			}
			if one.follow(e) {
				t.Fatal("one edge is taken for two")
			}
			if len(one) > maxLives || one[len(one)-1] != e {
				t.Fatalf("%d lives are remembered, the last is right: %v", len(one), one[len(one)-1] == e)
			}
		}
		other := stream.NewEpoch()
		if one.follow(other) {
			t.Fatal("an edge that starts anew is taken for another")
		}
		for i := range rapid.IntRange(1, 20).Draw(t, "turns") {
			if !one.follow([]stream.Epoch{e, other}[i%2]) {
				t.Fatalf("turn %d is not seen", i)
			}
		}
		slices.SortFunc(one, func(a, b stream.Epoch) int { return slices.Compare(a[:], b[:]) })
		if len(slices.Compact(one)) != min(len(one), maxLives) {
			t.Fatal("a life is remembered twice")
		}
	})
}
