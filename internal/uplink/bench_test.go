package uplink_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/rig/recording"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// frame is what MQTT adds to a batch after the first: fixed header and length,
// empty topic, packet id, properties with the alias.
const frame = 1 + 2 + 2 + 2 + 1 + 3

// arrivals gives recorded messages the times at which an edge would have
// accepted them: what was sampled at one time comes as a burst, 20 to 200 µs
// between the messages, after a delay of 0.5 ms on average. Seeded.
func arrivals(b *testing.B, path string, o recording.Options, exact bool) (recs []stream.Record, plain int) {
	chance := rand.New(rand.NewPCG(1, 7))
	start := time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC).UnixMicro()
	last, sampled, bursts := int64(0), int64(-1), int64(0)
	for m, err := range recording.ReadFile(path, o) {
		if err != nil {
			b.Fatal(err)
		}
		if len(m.Topic) > 68 {
			continue // obd.csv's last column is a remark
		}
		at := start + m.T.Microseconds()
		if strings.HasPrefix(m.Topic, "nmea/") { // the ship sends a burst every 2 s, which this sentence ends
			at = start + bursts*2_000_000
			if strings.HasSuffix(m.Topic, "GPZDA") {
				bursts++
			}
		}
		switch {
		case exact:
			last = at
		case at != sampled:
			last = max(last, at+int64(chance.ExpFloat64()*500))
		}
		if !exact {
			last += min(20+int64(chance.ExpFloat64()*60), 200)
		}
		sampled = at
		recs = append(recs, stream.Record{Seq: uint64(len(recs) + 1), Message: stream.Message{
			Topic: m.Topic, Payload: m.Payload, QoS: 1, Quality: stream.TimeLocal, Time: last / 1000 * 1000, // the lane's resolution: 1 ms
		}})
		plain += 2 + 2 + len(m.Topic) + 2 + 1 + len(m.Payload)
	}
	return recs, plain
}

// BenchmarkLink prints what a message of each recording costs on the link, in
// batches of 200: as plain MQTT, as the body alone, and with envelope and MQTT
// frame; and the time to encode and decode it.
func BenchmarkLink(b *testing.B) {
	dir := filepath.Join("..", "..", "..", "shared", "data")
	if _, err := os.Stat(dir); err != nil {
		b.Skipf("NOT MEASURED: the recordings are not in %s", dir)
	}
	for _, c := range []struct {
		name, file string
		layout     recording.Layout
	}{
		{"EV-JSON", "ev-gps.csv", recording.Signals}, {"OBD-bare", "obd.csv", recording.Bare}, {"OBD-JSON", "obd.csv", recording.Signals}, {"CAN", "can.candump.log", recording.Signals},
		{"NMEA0183", "ship.nmea0183.log", recording.Signals}, {"N2K", "ship.n2k.csv", recording.Signals}, {"IoT-JSON", "iot-payloads.json", recording.Signals},
	} {
		b.Run(c.name, func(b *testing.B) {
			recs, plain := arrivals(b, filepath.Join(dir, c.file), recording.Options{Layout: c.layout}, c.name == "CAN")
			n := float64(len(recs))
			var body, link int
			var encoding, decoding time.Duration
			for b.Loop() {
				body, link, encoding, decoding = send(b, recs, 200)
			}
			b.ReportMetric(float64(plain)/n, "plain-B/msg")
			b.ReportMetric(float64(body)/n, "body-B/msg")
			b.ReportMetric(float64(link)/n, "link-B/msg")
			b.ReportMetric(float64(encoding.Nanoseconds())/n, "encode-ns/msg")
			b.ReportMetric(float64(decoding.Nanoseconds())/n, "decode-ns/msg")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// send encodes and decodes all records as one connection's batches of size.
func send(b *testing.B, recs []stream.Record, size int) (body, link int, encoding, decoding time.Duration) {
	enc, dec := wire.NewEncoder(wire.EncoderOptions{}), wire.NewDecoder(wire.DecoderOptions{})
	id := stream.ID{Epoch: stream.Epoch{1}, Lane: stream.Normal}
	var packet, alone []byte
	for i := 0; i < len(recs); i += size {
		part := recs[i:min(i+size, len(recs))]
		batch := stream.Batch{ID: id, First: part[0].Seq, Records: part, Floor: part[0].Seq, Oldest: part[0].Time, Flags: stream.FIFO}
		batch.Head = batch.Last() + 37 // more came since
		began := time.Now()
		var err error
		if packet, err = enc.Append(packet[:0], &batch); err != nil {
			b.Fatal(err)
		}
		encoded := time.Now()
		got, err := dec.Decode(packet, "a")
		if err != nil || len(got.Records) != len(part) {
			b.Fatal(err)
		}
		decoding += time.Since(encoded)
		encoding += encoded.Sub(began)
		if alone, err = codec.AppendRows(alone[:0], part, 0); err != nil {
			b.Fatal(err)
		}
		body, link = body+len(alone), link+len(packet)+frame
	}
	return body, link, encoding, decoding
}
