package codec

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"unsafe"

	"pgregory.net/rapid"
)

// What the two sides of a session do not have in common, by type and field.
var onesOwn = map[string]bool{
	"octets.lost": true, "octets.rest": true, // the encoder's choice to send raw
	"literal.out": true, "literal.n": true, "literal.last": true, "literal.from": true, "literal.held": true, // of the text at hand
}

// differ is the first place where two values differ; "" where none does. A nil
// slice is an empty one; pointers are to be shared on both sides or on none.
func differ(at string, a, b reflect.Value, seen map[unsafe.Pointer]unsafe.Pointer) string {
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			if a.IsNil() != b.IsNil() {
				return at + ": there on one side only"
			}
			return ""
		}
		if p, ok := seen[a.UnsafePointer()]; ok {
			if p != b.UnsafePointer() {
				return at + ": shared with something else"
			}
			return ""
		}
		seen[a.UnsafePointer()] = b.UnsafePointer()
		return differ(at, a.Elem(), b.Elem(), seen)
	case reflect.Struct:
		for i := range a.NumField() {
			name := a.Type().Field(i).Name
			if onesOwn[a.Type().Name()+"."+name] {
				continue
			}
			if d := differ(at+"."+name, a.Field(i), b.Field(i), seen); d != "" {
				return d
			}
		}
		return ""
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return fmt.Sprintf("%s: %d and %d long", at, a.Len(), b.Len())
		}
		if plain(a.Type().Elem()) && bytes.Equal(memoryOf(a), memoryOf(b)) {
			return ""
		}
		for i := range a.Len() {
			if d := differ(at+"["+strconv.Itoa(i)+"]", a.Index(i), b.Index(i), seen); d != "" {
				return d
			}
		}
		return ""
	}
	if !a.Equal(b) {
		return fmt.Sprintf("%s: %v and %v", at, a, b)
	}
	return ""
}

// plain reports whether values of a type are no more than their bytes.
func plain(t reflect.Type) bool { return t.Kind() > reflect.Invalid && t.Kind() < reflect.Array }

// memoryOf are the bytes of a slice or an array.
func memoryOf(v reflect.Value) []byte {
	n := v.Len() * int(v.Type().Elem().Size())
	if v.Kind() == reflect.Array {
		return unsafe.Slice((*byte)(unsafe.Pointer(v.UnsafeAddr())), n)
	}
	return unsafe.Slice((*byte)(v.UnsafePointer()), n)
}

func differs(a, b *state) string {
	return differ("state", reflect.ValueOf(a), reflect.ValueOf(b), map[unsafe.Pointer]unsafe.Pointer{})
}

// block is a run of memory that a state holds.
type block struct {
	from, to uintptr
	path     string
	text     bool // of a string: nobody writes to it
}

// blocks are all the memory that is reached from v, but for v's own place. Slices
// count by what they could grow to.
func blocks(path string, v reflect.Value, seen map[unsafe.Pointer]bool, out []block) []block {
	add := func(p unsafe.Pointer, n uintptr) bool {
		if n == 0 || seen[p] {
			return false
		}
		seen[p] = true
		out = append(out, block{from: uintptr(p), to: uintptr(p) + n, path: path})
		return true
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && add(v.UnsafePointer(), v.Type().Elem().Size()) {
			out = blocks(path, v.Elem(), seen, out)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if onesOwn[v.Type().Name()+"."+v.Type().Field(i).Name] {
				continue // scratch, which has a limit of its own
			}
			out = blocks(path+"."+v.Type().Field(i).Name, v.Field(i), seen, out)
		}
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice {
			add(v.UnsafePointer(), uintptr(v.Cap())*v.Type().Elem().Size())
		}
		if plain(v.Type().Elem()) {
			return out
		}
		for i := range v.Len() {
			out = blocks(path, v.Index(i), seen, out)
		}
	case reflect.String:
		if p := unsafe.Pointer(unsafe.StringData(v.String())); add(p, uintptr(v.Len())) {
			out[len(out)-1].text = true
		}
	}
	return out
}

func blocksOf(s *state) []block {
	return blocks("state", reflect.ValueOf(s), map[unsafe.Pointer]bool{}, nil)
}

// neverWritten are the parts that a copy may share.
var neverWritten = map[string]bool{
	"state.templates.text": true, "state.templates.parts": true, "state.templates.parts.text": true,
	"state.templates.kinds": true, "state.topics.refs.cols.kinds": true,
}

// shares is a place where a copy shares memory that either side changes.
func shares(a, b *state) string {
	as, bs := blocksOf(a), blocksOf(b)
	slices.SortFunc(as, func(x, y block) int { return int(int64(x.from) - int64(y.from)) })
	for _, y := range bs {
		if y.text || neverWritten[y.path] {
			continue
		}
		// Any block of a that overlaps y: blocks of a may lie in each other only
		// where one is a part of the other, so the neighbours suffice.
		i, _ := slices.BinarySearchFunc(as, y.from, func(x block, p uintptr) int {
			if x.to <= p {
				return -1
			}
			return 1
		})
		for ; i < len(as) && as[i].from < y.to; i++ {
			if x := as[i]; !x.text && !neverWritten[x.path] {
				return fmt.Sprintf("%s is %s of the copy", x.path, y.path)
			}
		}
	}
	return ""
}

// memory is what a state takes, strings and what its slices could grow to
// included.
func memory(s *state) int {
	all := blocksOf(s)
	slices.SortFunc(all, func(x, y block) int { return int(int64(x.from) - int64(y.from)) })
	n, end := uintptr(0), uintptr(0)
	for _, x := range all {
		if x.to > end {
			n += x.to - max(x.from, end)
			end = x.to
		}
	}
	return int(n)
}

// recount is what used and valueBytes have to be.
func recount(s *state) (used, values int) {
	used = sizeState
	if fresh := newState(MinState); s.words.mix.Size() != fresh.words.mix.Size() {
		used += s.words.mix.Size() - fresh.words.mix.Size()
	}
	used += s.mix.Size() + s.turns.Size()
	for _, g := range s.templates {
		if g != nil {
			used += g.size()
		}
	}
	for _, t := range s.topics {
		if t == nil {
			continue
		}
		n := sizeTopic + 2*len(t.name) + cap(t.props)
		for i, r := range t.refs {
			n += sizeRef
			if r.bytes != nil {
				n += r.bytes.size()
			}
			if r.cols == nil || slices.ContainsFunc(t.refs[:i], func(o ref) bool { return o.cols == r.cols }) {
				continue
			}
			all, v := r.cols.size()
			n, values = n+all, values+v
		}
		used += n
	}
	return used, values
}

// sound checks what holds of a state between messages.
func sound(t rapid.TB, s *state) {
	t.Helper()
	used, values := recount(s)
	if s.used != used || s.valueBytes != values {
		t.Fatalf("the state counts %d bytes, %d of dictionaries; there are %d, %d", s.used, s.valueBytes, used, values)
	}
	if s.valueBytes > s.limit/2 {
		t.Fatalf("dictionaries of %d bytes in a state of %d", s.valueBytes, s.limit)
	}
	if strconv.IntSize == 64 {
		if n := memory(s); n > s.used {
			t.Fatalf("the state counts %d bytes and takes %d", s.used, n)
		}
	}
	live, older := 0, int32(-1)
	for id := s.ends.newer; id >= 0; id = s.topics[id].newer {
		if x := s.topics[id]; x == nil || x.id != id || x.older != older || live > len(s.topics) {
			t.Fatal("the topics are not in an order")
		}
		older = id
		live++
	}
	refs := make([]int, len(s.templates))
	for _, x := range s.topics {
		if x == nil {
			continue
		}
		live--
		if len(x.refs) > maxTemplates {
			t.Fatalf("a topic of %d shapes", len(x.refs))
		}
		cols := map[*columns]int{}
		for _, r := range x.refs {
			if r.kind == shapeTemplate {
				refs[r.template]++
				cols[r.cols]++
			}
		}
		for c, n := range cols {
			if c.refs != n {
				t.Fatalf("columns count %d shapes, there are %d", c.refs, n)
			}
		}
	}
	if live != 0 || older != s.ends.older {
		t.Fatalf("%d topics, %d free, %d off the order of use", len(s.topics), len(s.free), -live)
	}
	for i, g := range s.templates {
		if g == nil != (refs[i] == 0) || g != nil && g.refs != refs[i] {
			t.Fatalf("template %d: counted wrongly, there are %d", i, refs[i])
		}
	}
}
