package receipts

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func write(t interface{ Fatal(...any) }, path string, rs []Receipt, finish bool) {
	w, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rs {
		if err := w.Add(&rs[i]); err != nil {
			t.Fatal(err)
		}
	}
	if finish {
		err = w.Close()
	} else {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(path string) (all []Receipt, r *Reader, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	r = NewReader(bytes.NewReader(b), "receipts")
	for r.Next() {
		c := *r.Receipt()
		all = append(all, c)
	}
	return all, r, r.Err()
}

func gen() *rapid.Generator[Receipt] {
	return rapid.Custom(func(t *rapid.T) Receipt {
		r := Receipt{
			Client: rapid.StringN(1, 5, 10).Draw(t, "client"), Topic: rapid.StringN(1, 9, 30).Draw(t, "topic"),
			N: rapid.Uint64Min(1).Draw(t, "n"), Hash: Hash(rapid.Uint64().Draw(t, "hash")), Sent: []uint32{},
		}
		r.QoS = rapid.ByteMax(2).Draw(t, "qos")
		r.Sent = rising(t, "tries", 0, 5)
		r.Tries = len(r.Sent)
		if r.QoS == 2 && r.Tries > 0 {
			r.Sessions = rising(t, "sessions", 1, r.Tries)
		}
		r.Acked = r.QoS > 0 && r.Tries > 0 && rapid.Bool().Draw(t, "acked")
		return r
	})
}

func rising(t *rapid.T, what string, least, most int) []uint32 {
	all, n := []uint32{}, uint32(0)
	for range rapid.IntRange(least, most).Draw(t, what) {
		n += rapid.Uint32Range(1, 1000).Draw(t, "number")
		all = append(all, n)
	}
	return all
}

func TestReadsBackWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		path := filepath.Join(dir, string(rune('a'+n%26))+strings.Repeat("x", n/26))
		a, b := rapid.SliceOf(gen()).Draw(t, "first run"), rapid.SliceOf(gen()).Draw(t, "second run")
		write(t, path, a, true)
		write(t, path, b, true)
		got, r, err := read(path)
		want := append(append([]Receipt(nil), a...), b...)
		if err != nil || !reflect.DeepEqual(got, want) || r.Runs() != 2 || r.Unfinished() != 0 {
			t.Fatalf("%d runs, %d unfinished, %v\n got %v\nwant %v", r.Runs(), r.Unfinished(), err, got, want)
		}
		for i := range want { // the fast writer writes JSON
			line := appendLine(nil, &want[i])
			var back Receipt
			if err := json.Unmarshal(line, &back); err != nil || !reflect.DeepEqual(back, want[i]) {
				t.Fatalf("%s: %v", line, err)
			}
		}
	})
}

var some = []Receipt{
	{Client: "a", Topic: "t", N: 1, Hash: 7, QoS: 1, Tries: 1, Acked: true, Sent: []uint32{1}},
	{Client: "a", Topic: "t/ü\"", N: 2, Hash: 8, QoS: 2, Tries: 3, Acked: true, Sent: []uint32{1, 3, 4}, Sessions: []uint32{1, 3}},
	{Client: "a", Topic: "t", N: 3, Hash: 9, Tries: 1, Sent: []uint32{3}},
}

// A writer that was killed leaves a prefix of its bytes: whatever the prefix,
// the complete lines count, the reader says that the end is missing, and
// another run can follow.
func TestKilledWriterAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	write(t, whole, some, true)
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	head := bytes.IndexByte(b, '\n') + 1
	for cut := head; cut < len(b)-1; cut++ {
		lines := bytes.Count(b[:cut], []byte("\n")) - 1
		if b[cut] == '\n' && cut < len(b)-1 { // a line without its newline is still a whole one
			lines++
		}
		path := filepath.Join(dir, "cut")
		if err := os.WriteFile(path, b[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		got, r, err := read(path)
		if err != nil || len(got) != lines || r.Unfinished() != 1 {
			t.Fatalf("cut at %d: %d receipts of %d, %d unfinished, %v", cut, len(got), lines, r.Unfinished(), err)
		}
		write(t, path, some, true)
		got, r, err = read(path)
		if err != nil || len(got) != lines+len(some) || r.Unfinished() != 1 || r.Runs() != 2 {
			t.Fatalf("second run after a cut at %d: %d receipts, %d unfinished, %v", cut, len(got), r.Unfinished(), err)
		}
	}
}

func TestRefusesWhatIsNotReceipts(t *testing.T) {
	head := `{"packetboat_receipts":2}` + "\n"
	old := `{"packetboat_receipts":1}` + "\n"
	ok := `{"client":"a","topic":"t","n":1,"hash":"0000000000000007","qos":1,"tries":1,"acked":true,"sent":[1]}` + "\n"
	two := strings.Replace(strings.Replace(ok, `"qos":1`, `"qos":2`, 1), `[1]}`, `[1],"sessions":[1]}`, 1)
	for name, text := range map[string]string{
		"empty":              "",
		"other":              "hello\n",
		"no head":            ok,
		"version":            `{"packetboat_receipts":3}` + "\n",
		"version 0":          `{"packetboat_receipts":0}` + "\n",
		"middle torn":        head + `{"client":` + "\n" + ok,
		"wrong sum":          head + ok + `{"end":true,"messages":2,"acknowledged":1}` + "\n",
		"wrong acked":        head + ok + `{"end":true,"messages":1,"acknowledged":0}` + "\n",
		"after the end":      head + `{"end":true}` + "\n" + ok,
		"tries":              head + strings.Replace(ok, `"tries":1`, `"tries":3`, 1) + ok,
		"hash":               head + strings.Replace(ok, `0000000000000007`, `7`, 1) + ok,
		"acked, never sent":  head + strings.Replace(strings.Replace(ok, `"tries":1`, `"tries":0`, 1), `[1]`, `[]`, 1) + ok,
		"acked QoS 0":        head + strings.Replace(ok, `"qos":1`, `"qos":0`, 1) + ok,
		"QoS 3":              head + strings.Replace(two, `"qos":2`, `"qos":3`, 1) + ok,
		"without QoS":        head + strings.Replace(ok, `"qos":1,`, ``, 1) + ok,
		"QoS in format 1":    old + ok + ok,
		"no session":         head + strings.Replace(ok, `"qos":1`, `"qos":2`, 1) + ok,
		"session of QoS 1":   head + strings.Replace(two, `"qos":2`, `"qos":1`, 1) + ok,
		"sessions of format": old + strings.Replace(two, `"qos":2,`, ``, 1) + ok,
		"more than tries":    head + strings.Replace(two, `"sessions":[1]`, `"sessions":[1,2]`, 1) + ok,
		"sessions disorder":  head + strings.Replace(strings.Replace(two, `"tries":1`, `"tries":2`, 1), `[1],"sessions":[1]`, `[1,2],"sessions":[2,1]`, 1) + ok,
		"long line":          head + strings.Repeat(" ", maxLine+1),
	} {
		r := NewReader(strings.NewReader(text), "f")
		for r.Next() {
		}
		if r.Err() == nil || !strings.HasPrefix(r.Err().Error(), "f:") {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
	path := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(path, []byte("dear diary\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(path); err == nil {
		t.Error("appends to a diary")
	}
	if _, err := Append(t.TempDir()); err == nil {
		t.Error("appends to a directory")
	}
}

// Files that older programs wrote stay readable, also below a newer run.
func TestFormat1(t *testing.T) {
	old, err := os.ReadFile(filepath.Join("testdata", "format-1"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "r")
	if err := os.WriteFile(path, old, 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, path, some, true)
	got, r, err := read(path)
	want := append([]Receipt{
		{Client: "car-1-1", Topic: "car-1-1/engine/torque", N: 1, Hash: 0x9f86d081884c7d65, QoS: AtLeastOnce, Tries: 1, Acked: true, Sent: []uint32{1}},
		{Client: "car-1-1", Topic: "car-1-1/engine/torque", N: 2, Hash: 0xa1b2c3d4e5f60718, QoS: AtLeastOnce, Tries: 2, Acked: true, Sent: []uint32{1, 2}},
		{Client: "car-1-1", Topic: "car-1-1/engine/torque", N: 3, Hash: 0xa1b2c3d4e5f60719, QoS: AtLeastOnce, Sent: []uint32{}},
	}, some...)
	if err != nil || !reflect.DeepEqual(got, want) || r.Runs() != 2 || r.Unfinished() != 0 {
		t.Errorf("%v, %d runs\n got %v\nwant %v", err, r.Runs(), got, want)
	}
}

func TestAddRefusesNonsense(t *testing.T) {
	w, err := Append(filepath.Join(t.TempDir(), "r"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(&Receipt{Client: "a", Topic: "t", N: 1, Tries: 2, Sent: []uint32{4, 4}}); err == nil {
		t.Error("connections out of order pass")
	}
	if err := w.Add(&some[0]); err == nil {
		t.Error("goes on after an error")
	}
	if err := w.Close(); err == nil {
		t.Error("close hides the error")
	}
}

// Whatever the bytes, the reader ends, and what it gives obeys check.
func FuzzReader(f *testing.F) {
	head := `{"packetboat_receipts":2,"started":"2026-01-01T00:00:00Z"}` + "\n"
	f.Add([]byte(head + string(appendLine(nil, &some[1])) + `{"end":true,"messages":1,"acknowledged":1}` + "\n"))
	f.Add([]byte(head + head + "{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b), "f")
		n := 0
		for r.Next() {
			if err := r.Receipt().check(); err != nil {
				t.Fatal(err)
			}
			if r.Run() == 0 {
				t.Fatal("a receipt outside of a run")
			}
			n++
		}
		if n > bytes.Count(b, []byte("\n"))+1 {
			t.Fatalf("%d receipts", n)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	w, err := Append(filepath.Join(b.TempDir(), "r"))
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	r := some[0]
	r.Topic = "car-1/engine/coolant_temperature"
	for b.Loop() {
		if err := w.Add(&r); err != nil {
			b.Fatal(err)
		}
	}
}
