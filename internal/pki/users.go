package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxUserName is the longest name in bytes.
	MaxUserName = 128
	// DefaultMaxUsers bounds a file of users where nothing else is asked for.
	DefaultMaxUsers = 100_000
	maxUserLine     = MaxUserName + 1 + len(sumPrefix) + 64 + 1
)

// ErrNoUser means that a file of users does not hold a name.
var ErrNoUser = errors.New("no such user")

// ErrUserName says what a name looks like.
var ErrUserName = errors.New("a user name is 1 to 128 printable characters without spaces, and does not begin with #")

// CheckUserName returns ErrUserName, wrapped with the name, unless name is one.
func CheckUserName(name string) error {
	bad := name == "" || len(name) > MaxUserName || name[0] == '#' || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r >= 0x80 && r < 0xa1 || r == '\ufffd' || r == '\ufeff'
	})
	if bad {
		return fmt.Errorf("%.80q: %w", name, ErrUserName)
	}
	return nil
}

// Users is a file of names and hashes of secrets, one "name sha256:…" a line,
// with comments after # at the beginning of a line. It follows the file: every
// Check looks whether it changed. Methods are safe for concurrent use.
type Users struct {
	path string
	max  int

	mu   sync.Mutex // one reload at a time
	seen stamp      // guarded by mu
	now  atomic.Pointer[userSet]
}

// userSet is immutable.
type userSet struct {
	sums map[string]Sum
	err  error // why the file's newest content is not in force
}

// stamp tells one content of a file from the next without reading it.
type stamp struct {
	info   os.FileInfo // nil: no file
	settle bool        // read so soon after it was written that an equal stamp proves nothing
}

// racy is the coarsest clock of a file system we expect: a file that was written
// within this time of its reading may change again under the same time stamp. A
// stamp that lies in the future, because a clock was set back, is none a change
// would get again.
const racy = 2 * time.Second

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info, time.Since(info.ModTime()).Abs() > racy}, nil
}

// same reports whether the content that was read under a is that which b sees.
func (a stamp) same(b stamp) bool {
	if a.info == nil || b.info == nil {
		return a.info == nil && b.info == nil
	}
	return a.settle && os.SameFile(a.info, b.info) && a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime())
}

// badContent is an error of what a file holds, not of reading it: it stays until
// the file changes.
type badContent struct{ err error }

func (e *badContent) Error() string { return e.err.Error() }
func (e *badContent) Unwrap() error { return e.err }

// judged gives the stamp to remember of a content that was good, or bad: what is
// bad stays so until it changes, and must not be read again for each stranger
// that knocks. What could not be read at all is tried again.
func judged(at stamp, err error) stamp {
	if _, bad := errors.AsType[*badContent](err); err != nil && !bad {
		return stamp{}
	}
	return at
}

// OpenUsers reads the file at path. A line that is not understood, a name that
// stands twice and more than max users (0: DefaultMaxUsers) are errors.
func OpenUsers(path string, max int) (*Users, error) {
	if max <= 0 {
		max = DefaultMaxUsers
	}
	u := &Users{path: path, max: max}
	seen, err := stampOf(path)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	list, err := readUsers(path, max)
	if err != nil {
		return nil, err
	}
	u.seen = seen
	u.now.Store(&userSet{sums: sumsOf(list)})
	return u, nil
}

// Check reports whether secret is that of the user.
func (u *Users) Check(name string, secret []byte) bool {
	// An unknown name costs as much as a wrong secret: the hash of nothing is
	// compared, and no secret has the zero hash.
	sum, known := u.current().sums[name]
	return sum.Matches(secret) && known
}

// Has reports whether the file holds the user.
func (u *Users) Has(name string) bool {
	_, ok := u.current().sums[name]
	return ok
}

// Len is the number of users.
func (u *Users) Len() int { return len(u.current().sums) }

// Err says why the newest content of the file is not in force; nil when it is.
func (u *Users) Err() error { return u.current().err }

// current gives the users that are in force now.
func (u *Users) current() *userSet {
	u.mu.Lock()
	defer u.mu.Unlock()
	set := u.now.Load()
	seen, err := stampOf(u.path)
	if err == nil && u.seen.same(seen) {
		return set
	}
	var list []user
	if err == nil {
		list, err = readUsers(u.path, u.max)
	}
	if err != nil {
		// The last good users stay. A removed file must not let everybody in,
		// nor lock everybody out while an editor replaces it.
		set = &userSet{sums: set.sums, err: fmt.Errorf("reload users: %w", err)}
	} else {
		set = &userSet{sums: sumsOf(list)}
	}
	u.seen = judged(seen, err)
	u.now.Store(set)
	return set
}

type user struct {
	name string
	sum  Sum
}

func sumsOf(list []user) map[string]Sum {
	sums := make(map[string]Sum, len(list))
	for _, x := range list {
		sums[x.name] = x.sum
	}
	return sums
}

// ListUsers gives the names in a file, in its order.
func ListUsers(path string) ([]string, error) {
	list, err := readUsers(path, DefaultMaxUsers)
	names := make([]string, 0, len(list))
	for _, x := range list {
		names = append(names, x.name)
	}
	return names, err
}

func readUsers(path string, max int) ([]user, error) {
	data, err := readBounded(path, int64(max)*int64(maxUserLine)+1<<16)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	list, err := parseUsers(data, max)
	if err != nil {
		return nil, &badContent{fmt.Errorf("read users: %s%w", path, err)}
	}
	return list, nil
}

// parseUsers gives errors to stand behind the name of the file.
func parseUsers(data []byte, max int) (list []user, err error) {
	seen := map[string]bool{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, text, _ := strings.Cut(line, " ")
		sum, err := ParseSum(strings.TrimSpace(text))
		if err == nil {
			err = CheckUserName(name)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf(":%d: %w", n, err)
		case seen[name]:
			return nil, fmt.Errorf(":%d: %s stands twice", n, name)
		case len(list) == max:
			return nil, fmt.Errorf(" has more than %d users", max)
		}
		seen[name] = true
		list = append(list, user{name, sum})
	}
	return list, nil
}

// SetUser adds a user to the file, or gives one another secret. The file is
// made (mode 0600) when it is missing, keeps its comments, and is replaced
// whole: a reader sees the old one or the new one. Processes that change the
// same file wait for each other.
func SetUser(path, name string, sum Sum) (replaced bool, err error) {
	if err := CheckUserName(name); err != nil {
		return false, err
	}
	err = edit(path, func(lines []string) ([]string, error) {
		line := name + " " + sum.String()
		if i := slices.IndexFunc(lines, isUser(name)); i >= 0 {
			replaced = true
			lines[i] = line
			return lines, nil
		}
		return append(lines, line), nil
	})
	return replaced, err
}

// RemoveUser takes a user out of the file. ErrNoUser means that there was none.
func RemoveUser(path, name string) error {
	return edit(path, func(lines []string) ([]string, error) {
		n := len(lines)
		if lines = slices.DeleteFunc(lines, isUser(name)); len(lines) == n {
			return nil, fmt.Errorf("%s: %w", name, ErrNoUser)
		}
		return lines, nil
	})
}

func isUser(name string) func(string) bool {
	return func(line string) bool {
		got, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		return got == name
	}
}

// edit replaces the lines of a file atomically and durably.
func edit(path string, change func([]string) ([]string, error)) error {
	dir := filepath.Dir(path)
	unlock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("change users: %w", err)
	}
	defer unlock()
	// A broken file is not edited: the change could hide in it.
	if _, err := readUsers(path, DefaultMaxUsers); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var lines []string
	mode := fs.FileMode(0o600)
	if data, err := os.ReadFile(path); err == nil {
		lines = strings.Split(strings.TrimRight(string(data), "\n"), "\n")
		if lines[0] == "" && len(lines) == 1 {
			lines = nil
		}
		if info, err := os.Stat(path); err == nil {
			mode = info.Mode().Perm()
		}
	}
	if lines, err = change(lines); err != nil {
		return err
	}
	text := strings.Join(lines, "\n")
	if text != "" {
		text += "\n"
	}
	if err := replaceFile(path, []byte(text), mode); err != nil {
		return fmt.Errorf("change users: %w", err)
	}
	return nil
}
