package sensors

import (
	"fmt"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Store gives the front a place in the buffer for what its sessions may count
// on after a restart. Save may call done before it returns.
func (s *Sensors) Store() mqttfront.Store { return store{s} }

type store struct{ s *Sensors }

// Load yields what the buffer has kept.
func (t store) Load(yield func(key string, value []byte) bool) error {
	if err := t.s.buf.State(yield); err != nil {
		return fmt.Errorf("load sessions: %w", err)
	}
	return nil
}

// Save hands changes to the buffer. What could not be saved is counted; it is
// told to done, or, where nobody waits, to the log.
func (t store) Save(changes []mqttfront.Change, done func(error)) {
	entries := make([]buffer.Entry, len(changes))
	for i := range changes {
		entries[i] = buffer.Entry(changes[i])
	}
	err := t.s.buf.Commit(buffer.Write{State: entries, Lazy: done == nil}, func(_ stream.Position, err error) { t.saved(err, done) })
	if err != nil {
		t.saved(err, done)
	}
}

func (t store) saved(err error, done func(error)) {
	s := t.s
	if err != nil {
		s.n.unsaved.Add(1)
		err = fmt.Errorf("save sessions: %w", err)
	}
	if kind, news := s.changed(&s.unsaved, err); news && err != nil {
		s.log.Error("sessions, retained messages and wills cannot be saved", "reason", answerNames[kind], "error", err)
	} else if news {
		s.log.Info("sessions, retained messages and wills are saved again")
	}
	if done != nil {
		done(err)
	}
}
