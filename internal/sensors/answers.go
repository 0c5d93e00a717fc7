package sensors

import (
	"errors"
	"sync/atomic"

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
	if kind, news := changed(&s.refusing, err); !news {
		return
	} else if err != nil {
		s.log.Error("buffer takes no messages", "reason", answerNames[kind], "error", err)
	} else {
		s.log.Info("buffer takes messages again")
	}
}

// changed reports whether err is of another kind than the one before. ErrBusy is
// load, not news, and a message that is too large is the sensor's affair.
func changed(last *atomic.Uint32, err error) (kind uint32, news bool) {
	kind = kindOf(err)
	if kind == answerBusy || kind == answerTooLarge || last.Load() == kind {
		return kind, false
	}
	return kind, last.Swap(kind) != kind
}
