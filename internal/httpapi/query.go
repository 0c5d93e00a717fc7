package httpapi

import (
	"math"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	// maxFilter is the longest topic filter, as MQTT has it.
	maxFilter = 65535
	// maxCursor is the longest cursor text that is read.
	maxCursor = 64 << 10
)

// recordQuery is what /api/v1/records was asked for.
type recordQuery struct {
	cursor commitlog.Cursor
	filter commitlog.Filter
	limit  int64 // 0: none
}

func parseRecordQuery(q url.Values) (rq recordQuery, err error) {
	if d := q.Get("device"); d != "" {
		if err := stream.CheckDeviceID(d); err != nil {
			return rq, badParameter("device", "give one device id", "%v", err)
		}
		rq.filter.Device = d
	}
	rq.filter.Topic = q.Get("topic")
	if err := checkTopicFilter(rq.filter.Topic); err != nil {
		return rq, err
	}
	if rq.filter.From, err = timeParameter(q, "from"); err != nil {
		return rq, err
	}
	if rq.filter.To, err = timeParameter(q, "to"); err != nil {
		return rq, err
	}
	if c := q.Get("cursor"); c != "" {
		if len(c) > maxCursor {
			return rq, badParameter("cursor", "use the cursor of a line as it stands there", "the cursor has %d bytes", len(c))
		}
		if rq.cursor, err = commitlog.ParseCursor(c); err != nil {
			return rq, badParameter("cursor", "use the cursor of a line as it stands there", "%v", err)
		}
	}
	if f := q.Get("follow"); f != "" {
		if rq.filter.Follow, err = strconv.ParseBool(f); err != nil {
			return rq, badParameter("follow", "give true or false", "%q is neither true nor false", clip(f))
		}
	}
	if rq.filter.To != 0 && rq.filter.From > rq.filter.To {
		return rq, badParameter("to", "from comes first, to is not included", "to lies before from")
	}
	rq.limit, err = countParameter(q, "limit", 0, math.MaxInt64)
	return rq, err
}

// countParameter reads a whole number from 1 to top; absent gives def.
func countParameter(q url.Values, name string, def, top int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > top {
		return 0, badParameter(name, "give a whole number from 1 to "+strconv.FormatInt(top, 10), "%q is out of range", clip(text))
	}
	return n, nil
}

func timeParameter(q url.Values, name string) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	t, err := ParseTime(text)
	if err != nil {
		return 0, badParameter(name, "give RFC 3339, as 2026-01-31T08:00:00Z, or µs since 1970", "%q is not a time", clip(text))
	}
	return t, nil
}

// ParseTime reads RFC 3339 or whole microseconds since 1970 UTC, and gives
// microseconds since 1970 UTC.
func ParseTime(text string) (int64, error) {
	if us, err := strconv.ParseInt(text, 10, 64); err == nil {
		return us, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, err
	}
	return t.UnixMicro(), nil
}

func checkTopicFilter(f string) error {
	const hint = "give an MQTT topic filter: + stands for one whole level, # for all that is left"
	if len(f) > maxFilter || !utf8.ValidString(f) {
		return badParameter("topic", hint, "a topic filter has at most %d bytes of UTF-8", maxFilter)
	}
	if err := commitlog.CheckTopicFilter(f); err != nil {
		return badParameter("topic", hint, "%q is not a topic filter", clip(f))
	}
	return nil
}
