package linkbench

import (
	"errors"
	"fmt"
)

// ErrAbove says that a figure is above its bound.
var ErrAbove = errors.New("more bytes than the bound allows")

// bound is the most bytes a message may take on the link.
type bound struct {
	set  int // of made
	mode string
	size int
	most float64
}

// bounds are for the short run, whose bytes are the same on every machine: what
// packetboat-sim bench-link --short --json prints, and 5 % for changes that are
// worth it elsewhere. Who makes the link better tightens them.
var bounds = []bound{
	{0, "rows", 20, 26.41}, {0, "rows", 200, 15.69},
	{0, "self_contained", 20, 17.95}, {0, "self_contained", 200, 9.11},
	{0, "learning", 20, 2.35}, {0, "learning", 200, 1.59},
	{0, "resume", 20, 2.37}, {0, "resume", 200, 1.61},
	{1, "rows", 20, 28.78}, {1, "rows", 200, 14.56},
	{1, "self_contained", 20, 20.68}, {1, "self_contained", 200, 8.07},
	{1, "learning", 20, 2.11}, {1, "learning", 200, 1.35},
	{1, "resume", 20, 2.13}, {1, "resume", 200, 1.37},
}

// judge holds the figures of the made-up devices against their bounds.
func judge(results []Result, bounds []bound) (err error) {
	for _, b := range bounds {
		name := made()[b.set].name
		for i := range results {
			if results[i].Name != name {
				continue
			}
			f := results[i].figure(b.mode, b.size)
			switch {
			case f == nil:
				err = errors.Join(err, fmt.Errorf("%s, %s, batches of %d: there is no figure for its bound", name, b.mode, b.size))
			case f.Bytes > b.most:
				err = errors.Join(err, fmt.Errorf("%w: %s, %s, batches of %d: %.4f bytes per message, %.4f at most", ErrAbove, name, b.mode, b.size, f.Bytes, b.most))
			}
		}
	}
	return err
}
