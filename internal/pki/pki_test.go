package pki

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSecrets(t *testing.T) {
	text, sum := NewSecret()
	other, _ := NewSecret()
	if text == other || !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(text) {
		t.Errorf("secret %q", text)
	}
	if !sum.Matches([]byte(text)) || sum.Matches([]byte(other)) || sum.Matches(nil) || (Sum{}).Matches(nil) {
		t.Error("a secret is matched wrongly")
	}
	if back, err := ParseSum(sum.String()); err != nil || back != sum {
		t.Errorf("%s: %v", sum, err)
	}
	for _, bad := range []string{"", "sha256:", "md5:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("g", 64), "sha256:" + strings.Repeat("0", 65)} {
		if _, err := ParseSum(bad); err == nil {
			t.Errorf("%q is a hash", bad)
		}
	}
}

func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	put := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(" abc \n")
	if got, err := ReadSecret(path); err != nil || string(got) != "abc" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", " \n", "a\nb\n", strings.Repeat("x", maxSecretFile+1)} {
		put(bad)
		if _, err := ReadSecret(path); err == nil {
			t.Errorf("%.20q is read", bad)
		}
	}
	if _, err := ReadSecret(filepath.Dir(path)); err == nil {
		t.Error("a directory is read")
	}
}

// A file that was edited any number of times says what a map says, to a reader
// that was open all the time, too.
func TestUsersAgainstModel(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(path, []byte("# who may come in\n"), 0o640); err != nil {
			t.Fatal(err)
		}
		users, err := OpenUsers(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		model := map[string]string{}
		names := rapid.SampledFrom([]string{"truck-17", "a", "ab", "käse", "x/y"})
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			name := names.Draw(t, "name")
			_, had := model[name]
			if rapid.Bool().Draw(t, "add") {
				text, sum := NewSecret()
				replaced, err := SetUser(path, name, sum)
				if err != nil || replaced != had {
					t.Fatalf("set %s: replaced %v, %v", name, replaced, err)
				}
				model[name] = text
			} else if err := RemoveUser(path, name); had != (err == nil) || !had && !errors.Is(err, ErrNoUser) {
				t.Fatalf("remove %s (there: %v): %v", name, had, err)
			} else {
				delete(model, name)
			}
			for _, name := range []string{"truck-17", "a", "ab", "käse", "x/y", "nobody", ""} {
				secret, in := model[name]
				if users.Check(name, []byte(secret)) != in || users.Has(name) != in || users.Check(name, []byte(secret+"x")) {
					t.Fatalf("%s (there: %v) is checked wrongly", name, in)
				}
			}
			list, err := ListUsers(path)
			if err != nil || len(list) != len(model) || users.Len() != len(model) || users.Err() != nil {
				t.Fatalf("list %v, %v, %v", list, err, users.Err())
			}
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(data, []byte("# who may come in\n")) {
			t.Fatalf("the comment is gone: %q, %v", data, err)
		}
		if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
			t.Fatalf("mode %v", info.Mode())
		}
	})
}

func TestNewFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if _, err := SetUser(path, "x", Sum{}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Error("left behind", left)
	}
}

func TestBrokenUserFiles(t *testing.T) {
	ok := Sum{1}.String()
	for text, want := range map[string]string{
		"a " + ok + "\na " + ok + "\n":        ":2: a stands twice",
		"a\n":                                 ":1: want sha256:",
		"a secret\n":                          ":1: want sha256:",
		"# c\n\n" + ok + " a\n":               ":3: want sha256:",
		"a " + ok + "\nb " + ok + "\nc " + ok: "more than 2 users",
	} {
		path := filepath.Join(t.TempDir(), "users")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenUsers(path, 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	for _, name := range []string{"", "#a", "a b", "a\n", "a\x00", strings.Repeat("x", MaxUserName+1), "\xff", "\u00a0"} {
		if _, err := SetUser(filepath.Join(t.TempDir(), "users"), name, Sum{}); !errors.Is(err, ErrUserName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A file that becomes unreadable neither opens the door nor closes it.
func TestLastGoodUsersStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	secret, sum := NewSecret()
	if _, err := SetUser(path, "a", sum); err != nil {
		t.Fatal(err)
	}
	users, err := OpenUsers(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := os.ReadFile(path)
	for _, breakIt := range []func() error{
		func() error { return os.WriteFile(path, []byte("rubbish\n"), 0o600) },
		func() error { return os.Remove(path) },
	} {
		if err := breakIt(); err != nil {
			t.Fatal(err)
		}
		if !users.Check("a", []byte(secret)) || users.Check("b", nil) || users.Err() == nil {
			t.Errorf("users changed, or nothing is said: %v", users.Err())
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if !users.Check("a", []byte(secret)) || users.Err() != nil {
			t.Errorf("not good again: %v", users.Err())
		}
	}
	if err := os.WriteFile(path, []byte("rubbish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SetUser(path, "b", sum); err == nil {
		t.Error("a broken file was edited")
	}
}

// Whatever the clocks say, a change under the same size is noticed, and a file
// that rests is not read again.
func TestStamps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	for _, shift := range []time.Duration{-time.Hour, 0, time.Hour} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(shift)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		first, err := stampOf(path)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := stampOf(path)
		if first.same(again) != (shift != 0) {
			t.Errorf("shift %s: unchanged file is the same: %v", shift, first.same(again))
		}
		if err := os.WriteFile(path, []byte("y"), 0o600); err != nil {
			t.Fatal(err)
		}
		if changed, _ := stampOf(path); first.same(changed) {
			t.Errorf("shift %s: a change is not seen", shift)
		}
	}
}

func TestConcurrentEdits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if _, err := SetUser(path, "first", Sum{}); err != nil {
		t.Fatal(err)
	}
	users, err := OpenUsers(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 8 {
				if _, err := SetUser(path, fmt.Sprintf("u%d-%d", i, j), Sum{}); err != nil {
					t.Error(err)
				}
				if !users.Has("first") {
					t.Error("a reader saw half a file")
				}
			}
		})
	}
	wg.Wait()
	if users.Len() != 65 {
		t.Errorf("%d users, want 65", users.Len())
	}
}

func FuzzReadUsers(f *testing.F) {
	f.Add([]byte("a " + Sum{1}.String() + "\n# x\n"))
	f.Add([]byte(" a  " + Sum{1}.String() + " \r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "u")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readUsers(path, 3)
		if err == nil && len(list) > 3 {
			t.Fatal("not bounded")
		}
		for _, u := range list {
			if CheckUserName(u.name) != nil {
				t.Fatalf("took the name %q", u.name)
			}
		}
	})
}
