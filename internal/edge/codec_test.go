package edge

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/pkg/stream"
)

// The status and the metrics say how small messages become, with a hub that
// learns, with one that knows nothing but rows, and where rows are configured.
func TestCodecOnTheLink(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations/edge.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		old   bool
		codec CodecName
		want  string
		fresh int64
	}{
		"learning":     {false, LearningCodec, "learning", 1},
		"an older hub": {true, LearningCodec, "rows", 0},
		"configured":   {false, RowsCodec, "rows", 0},
	} {
		t.Run(name, func(t *testing.T) {
			conf := testConfig(t)
			conf.Hub.Codec = Codec{Name: c.codec, StateBytes: 1 << 20, Keep: config.Duration(0)}
			r := begin(t, conf)
			if s := r.status(t); s.Link.Codec != nil {
				t.Errorf("before the first connection: %+v", s.Link.Codec)
			}
			x, _, err := sensor(t, r.MQTT, "gps", "", "")
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				publish(t, x, "a/b", "1.25")
			}
			hub := &miniHub{t: t, old: c.old, log: stream.LogID{Name: stream.NewEpoch(), Incarnation: stream.NewEpoch()}}
			hub.begin(t, conf.Hub.URLs[0][len("tcp://"):])
			s := r.eventually(t, "all is settled", func(s *Status) bool { return s.Messages.Settled == 20 })
			k := s.Link.Codec
			if k == nil || k.Codec != c.want || k.SessionsFresh != c.fresh || k.SessionsResumed != 0 || k.MessagesSent != 20 ||
				k.BodyPerMessage <= 0 || k.BytesPerMessage <= k.BodyPerMessage || (k.StateBytes > 0) != (c.fresh > 0) {
				t.Fatalf("%+v", k)
			}
			var printed bytes.Buffer
			if err := s.Print(&printed); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(printed.String(), "\ncodec       "+c.want+", ") {
				t.Errorf("%s", printed.String())
			}
			text, err := json.Marshal(k)
			if err != nil {
				t.Fatal(err)
			}
			var keys map[string]any
			if err := json.Unmarshal(text, &keys); err != nil {
				t.Fatal(err)
			}
			for key := range keys {
				if !strings.Contains(string(doc), "`"+key+"`") {
					t.Errorf("the manual does not explain %s", key)
				}
			}
			_, body := get(t, r.base+"/metrics")
			fresh := "packetboat_edge_link_codec_sessions_total{how=\"fresh\"} 0\n"
			if c.fresh > 0 {
				fresh = strings.Replace(fresh, "} 0", "} 1", 1)
			}
			if !strings.Contains(body, fresh) {
				t.Errorf("no %s", fresh)
			}
		})
	}
}

func TestCodecLine(t *testing.T) {
	for want, s := range map[string]CodecStatus{
		"rows": {Codec: "rows"},
		"learning, 0.412 bytes per message, of which records 0.133, 2 sessions begun, 1,000 resumed, 640.0KiB learned": {
			Codec: "learning", MessagesSent: 1, BytesPerMessage: 0.4119, BodyPerMessage: 0.133, SessionsFresh: 2, SessionsResumed: 1000, StateBytes: 640 << 10},
		"rows, 123 bytes per message, of which records 12.35": {Codec: "rows", MessagesSent: 1, BytesPerMessage: 123.4, BodyPerMessage: 12.346},
	} {
		if got := s.line(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
