package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxViolations bounds a report; a file that is no configuration at all would
// otherwise fill the screen.
const maxViolations = 100

// Violation is one thing that is wrong with a configuration.
type Violation struct {
	File    string `json:"file,omitempty"`   // empty when it does not come from a file
	Line    int    `json:"line,omitempty"`   // from 1; 0: the file as a whole
	Column  int    `json:"column,omitempty"` // from 1
	Source  string `json:"source,omitempty"` // the environment variable or flag, if one set the value
	Key     string `json:"key,omitempty"`    // "lanes[1].name"
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what was probably meant, or what to do
}

// String gives "edge.yaml:12:3: buffer.max_byte: unknown key (did you mean
// max_bytes?)".
func (v Violation) String() string {
	var parts []string
	switch {
	case v.File != "" && v.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d:%d", v.File, v.Line, v.Column))
	case v.File != "":
		parts = append(parts, v.File)
	case v.Source != "":
		parts = append(parts, v.Source)
	}
	if v.Key != "" {
		parts = append(parts, v.Key)
	}
	text := strings.Join(append(parts, v.Message), ": ")
	if v.Hint != "" {
		text += " (" + v.Hint + ")"
	}
	return text
}

// Errors is everything that is wrong with a configuration, in the order of the
// file; what the environment and flags say comes after it.
type Errors struct{ All []Violation }

func (e *Errors) Error() string { return strings.Join(e.Lines(), "\n") }

// Lines gives one line per violation.
func (e *Errors) Lines() []string {
	lines := make([]string, 0, len(e.All))
	for _, v := range e.All {
		lines = append(lines, v.String())
	}
	return lines
}

// ExitCode is 2, the code for wrong arguments or configuration.
func (e *Errors) ExitCode() int { return 2 }

// add keeps the first violation of a key and place.
func (e *Errors) add(v Violation) {
	if len(e.All) == maxViolations {
		return
	}
	e.All = append(e.All, v)
}

func (e *Errors) orNil() error {
	if len(e.All) == 0 {
		return nil
	}
	slices.SortStableFunc(e.All, func(a, b Violation) int {
		inFile := func(v Violation) int {
			if v.File != "" {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(inFile(a), inFile(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e
}

// didYouMean is the hint for a name that is none of known, "" when none is
// near.
func didYouMean(name string, known []string) string {
	best, at := "", len(name)/2+1
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k), at); d < at {
			best, at = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// distance counts the edits (insert, delete, replace, swap of neighbours)
// between a and b; limit or more is given as limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return min(prev[len(b)], limit)
}
