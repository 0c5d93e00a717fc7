// Package acl decides who may publish to and see which topics, by a file in the
// syntax of mosquitto's acl_file.
//
// It promises that what no line allows is denied, that deny wins wherever it
// stands, that a name or client id never widens a pattern, that the file is
// followed without a restart and that one that cannot be read leaves the last
// good rules in force. An answer costs neither an allocation nor a lock, and
// does not grow with the number of rules that cannot match. It knows no MQTT
// connection, proves nobody's name and starts no goroutine.
package acl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxFile bounds an ACL file, in bytes.
const maxFile = 4 << 20

// List is a file of rules. It follows the file: For and Refresh look whether it
// changed. Methods are safe for concurrent use. A nil List allows everything.
type List struct {
	path string
	now  atomic.Pointer[policy]

	mu   sync.Mutex // one reload at a time
	seen stamp      // guarded by mu
	err  error      // guarded by mu; why the newest content is not in force
}

// Open reads the file at path. An error that is a *FileError names all that is
// wrong with its content.
func Open(path string) (*List, error) {
	l := &List{path: path}
	seen, err := stampOf(path)
	if err != nil {
		return nil, fmt.Errorf("read the acl: %w", err)
	}
	p, err := readPolicy(path)
	if err != nil {
		return nil, err
	}
	l.seen = seen
	p.version = 1
	l.now.Store(p)
	return l, nil
}

func readPolicy(path string) (*policy, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the acl: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read the acl: %s is not a file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("read the acl: %s has %d bytes, more than %d", path, info.Size(), maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the acl: %w", err)
	}
	p, violations := parse(string(text))
	if len(violations) > 0 {
		return nil, &FileError{Path: path, All: violations}
	}
	return p, nil
}

// For gives what a client may do. user is empty for one that proved no name.
// The View sees later changes of the file.
func (l *List) For(user, clientID string) View {
	if l == nil {
		return View{all: true}
	}
	l.Refresh()
	return View{list: l, user: user, client: clientID, userOK: plain(user), clientOK: plain(clientID)}
}

// Refresh looks whether the file changed, and puts a good new content in force.
func (l *List) Refresh() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	seen, err := stampOf(l.path)
	if err == nil && l.seen.same(seen) {
		return
	}
	var p *policy
	if err == nil {
		p, err = readPolicy(l.path)
	}
	if err != nil {
		// The last good rules stay. A removed file must not allow everything,
		// nor lock everybody out while an editor replaces it.
		l.err, l.seen = fmt.Errorf("reload: %w", err), stamp{}
		if _, ok := errors.AsType[*FileError](err); ok {
			l.seen = seen // it stays wrong until it changes: connects must not read it again and again
		}
		return
	}
	l.err, l.seen = nil, seen
	old := l.now.Load()
	if p.equal(old) {
		return // its time stamp was too young to be believed, or it was only touched
	}
	p.version = old.version + 1
	l.now.Store(p)
}

// Err says why the newest content of the file is not in force; nil when it is.
func (l *List) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Rules is the number of rules in force, Users the names of those who have a
// section of their own, with the line where it begins.
func (l *List) Rules() int { return len(l.now.Load().rules) }

// Users lists the names that have a section of their own, in order of the file.
func (l *List) Users() []Section { return l.now.Load().sections }

// Section is where the rules of a user begin.
type Section struct {
	User string
	Line int
}

// Run refreshes the list every so often until ctx ends, so that a change
// reaches those who are connected, and logs each change once.
func (l *List) Run(ctx context.Context, every time.Duration, log *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	version, told := l.now.Load().version, ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.Refresh()
		text := ""
		if err := l.Err(); err != nil {
			text = err.Error()
		}
		if text != told && text != "" {
			log.Warn("changed acl file cannot be used, the last good rules stay in force", "error", text)
		} else if text != told {
			log.Info("acl file is good again", "rules", l.Rules())
		}
		if v := l.now.Load().version; v != version {
			log.Info("acl changed", "rules", l.Rules())
			version = v
		}
		told = text
	}
}

// stamp tells one content of a file from the next without reading it.
type stamp struct {
	info   os.FileInfo // nil: no file
	settle bool        // read so soon after it was written that an equal stamp proves nothing
}

// racy is the coarsest clock of a file system we expect: a file that was written
// within this time of its reading may change again under the same time stamp.
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
	return a.info != nil && a.settle && os.SameFile(a.info, b.info) &&
		a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime())
}

// plain reports whether a name may stand for %u or %c: it is there, and holds
// nothing that means more than itself in a filter.
func plain(name string) bool { return name != "" && !strings.ContainsAny(name, "+#/\x00") }
