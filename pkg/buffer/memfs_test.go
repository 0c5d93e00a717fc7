package buffer

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// memDir is a directory in memory that knows what was synced, for crash images,
// and that fails when told to.
type memDir struct {
	mu     sync.Mutex
	files  map[string]*memFile
	locked bool
	// fault, if set, is asked before each operation on a file ("create",
	// "write", "sync", "read", "publish", "remove").
	fault func(op, name string) error
	// faultAt is the same for reads, with the offset.
	faultAt func(op, name string, off int64) error
	// before, if set, is called before each operation that writes, with mu held.
	before func()
	// deaf: syncs do nothing, as on a disk that lies.
	deaf bool
}

type memFile struct {
	dir     *memDir
	name    string
	data    []byte // as the running process sees it
	durable []byte // as of the last sync
	pending []memWrite
}

type memWrite struct {
	off  int64
	data []byte
}

func newMemDir() *memDir { return &memDir{files: map[string]*memFile{}} }

func (d *memDir) ask(op, name string) error {
	if d.before != nil && op != "read" {
		d.before()
	}
	if d.fault != nil {
		return d.fault(op, name)
	}
	return nil
}

type memLock struct{ d *memDir }

func (l memLock) Close() error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.d.locked = false
	return nil
}

func (d *memDir) Lock() (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked {
		return nil, ErrLocked
	}
	d.locked = true
	return memLock{d}, nil
}

func (d *memDir) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files)), nil
}

func (d *memDir) Open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return f, nil
}

func (d *memDir) Create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ask("create", name); err != nil {
		return nil, err
	}
	f := &memFile{dir: d, name: name}
	d.files[name] = f
	return f, nil
}

func (d *memDir) Publish(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ask("publish", from); err != nil {
		return err
	}
	f := d.files[from]
	delete(d.files, from)
	f.name = to
	d.files[to] = f
	return nil
}

func (d *memDir) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ask("remove", name); err != nil {
		return err
	}
	delete(d.files, name)
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if err := f.dir.ask("read", f.name); err != nil {
		return 0, err
	}
	if f.dir.faultAt != nil {
		if err := f.dir.faultAt("read", f.name, off); err != nil {
			return 0, err
		}
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	err := f.dir.ask("write", f.name)
	if err != nil {
		p = p[:len(p)/2] // a failed write leaves half of it
	}
	if grow := off + int64(len(p)) - int64(len(f.data)); grow > 0 {
		f.data = append(f.data, make([]byte, grow)...)
	}
	copy(f.data[off:], p)
	f.pending = append(f.pending, memWrite{off, slices.Clone(p)})
	if err != nil {
		return len(p), err
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if err := f.dir.ask("sync", f.name); err != nil {
		f.pending = nil // as Linux: the pages are clean now and may never arrive
		return err
	}
	if !f.dir.deaf {
		f.durable = append(f.durable[:0], f.data...)
		f.pending = nil
	}
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *memFile) Close() error { return nil }

// crash gives the directory as it may be after a power cut: of what was written
// since the last sync, each sector is there, or not, or holds rubbish.
func (d *memDir) crash(rng *rand.Rand) *memDir {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.crashLocked(rng)
}

func (d *memDir) crashLocked(rng *rand.Rand) *memDir {
	out := newMemDir()
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		data := slices.Clone(f.durable)
		mode := rng.IntN(4) // 0: nothing arrived, 1: all, 2: some sectors, 3: some, some rubbish
		for _, w := range f.pending {
			if grow := w.off + int64(len(w.data)) - int64(len(data)); grow > 0 {
				data = append(data, make([]byte, grow)...)
			}
			for off := 0; off < len(w.data); off += 512 {
				sector := w.data[off:min(off+512, len(w.data))]
				at := data[w.off+int64(off):][:len(sector)]
				switch fate := rng.IntN(10); {
				case mode == 1 || mode >= 2 && fate < 6:
					copy(at, sector)
				case mode == 3 && fate == 9:
					for i := range at {
						at[i] = byte(rng.Uint32())
					}
				}
			}
		}
		out.files[name] = &memFile{dir: out, name: name, data: data, durable: slices.Clone(data)}
	}
	return out
}

// image copies the directory as the running process sees it.
func (d *memDir) image() *memDir {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := newMemDir()
	for name, f := range d.files {
		out.files[name] = &memFile{dir: out, name: name, data: slices.Clone(f.data), durable: slices.Clone(f.data)}
	}
	return out
}

var errInjected = errors.New("injected: input/output error")
