package sensors

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/buffer"
)

// The kinds of answer of the buffer.
const (
	answerTaken = iota
	answerFull
	answerStateFull
	answerBusy
	answerTooLarge
	answerDisk
)

var answerNames = [...]string{"taken", "full", "state_full", "busy", "too_large", "disk"}

// failed maps an error of the buffer to what the sensor is told.
func (s *Sensors) failed(err error) mqttfront.Result {
	s.answers(err)
	kind := kindOf(err)
	s.n.refused[kind].Add(1)
	switch kind {
	case answerFull, answerStateFull, answerBusy:
		return mqttfront.Result{Code: mqttfront.QuotaExceeded, NoFanOut: true}
	case answerTooLarge:
		return mqttfront.Result{Code: mqttfront.ImplementationSpecificError, NoFanOut: true}
	}
	// The disk, or a buffer that is closing: the sensor has to keep it.
	return mqttfront.Result{Code: mqttfront.UnspecifiedError, Withhold: true, NoFanOut: true}
}

func kindOf(err error) uint32 {
	switch {
	case err == nil:
		return answerTaken
	case errors.Is(err, buffer.ErrStateFull):
		return answerStateFull
	case errors.Is(err, buffer.ErrFull):
		return answerFull
	case errors.Is(err, buffer.ErrBusy):
		return answerBusy
	case errors.Is(err, buffer.ErrTooLarge):
		return answerTooLarge
	}
	return answerDisk
}

// answers logs when the buffer begins or ceases to refuse messages.
func (s *Sensors) answers(err error) {
	if kind, news := s.changed(&s.refusing, err); !news {
		return
	} else if err != nil {
		s.log.Error("buffer takes no messages", "reason", answerNames[kind], "error", err)
	} else {
		s.log.Info("buffer takes messages again")
	}
}

// lastAnswer is of what kind the last answer of the buffer was, so that a change
// is logged once and not for each.
type lastAnswer struct {
	kind atomic.Uint32
	told atomic.Int64 // when it was last said that the map is full, ns of the process
}

// fullAgain is the least time between two lines that say the map is full. At its
// limit sensors fill and free it by turns: beside each message of QoS 2 that is
// refused stands a release that makes room, or a message that needs none.
const fullAgain = time.Minute

// changed reports whether err is of another kind than the one before. ErrBusy is
// load, not news, and a message that is too large is the sensor's affair.
func (s *Sensors) changed(last *lastAnswer, err error) (kind uint32, news bool) {
	kind = kindOf(err)
	if kind == answerBusy || kind == answerTooLarge || last.kind.Load() == kind {
		return kind, false
	}
	if kind == answerStateFull {
		now, told := s.denials.elapsed(), last.told.Load()
		if told != 0 && now-told < int64(fullAgain) || !last.told.CompareAndSwap(told, max(now, 1)) {
			return kind, false
		}
	}
	return kind, last.kind.Swap(kind) != kind
}
