package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/fleet"
	"github.com/packetboat/packetboat/firmware-sim/signals"
	"github.com/packetboat/packetboat/internal/rig/recording"
)

// doors are the edge's listeners, host:port.
type doors struct{ tcp, tls, ws string }

// urls are the addresses of the doors; sensors are dealt out to them in turn.
func (d doors) urls() []string { return []string{"tcp://" + d.tcp, "tls://" + d.tls, "ws://" + d.ws} }

// exactRate is how many messages per second each of the QoS 2 sensors sends.
const exactRate = 400

// sensors makes the demo's sensors, and says in words what they are.
func sensors(o Options, at doors) ([]fleet.Client, string, error) {
	if o.Data != "" {
		return replayed(o.Data, 4*o.Pace, at)
	}
	const name = "car-1"
	d, err := signals.New(signals.Options{Profile: "car", Name: name, Seed: o.Seed, Start: time.Now()})
	if err != nil {
		return nil, "", err
	}
	clients := []fleet.Client{{ID: name, Source: fleet.FromDevice(d, 0), Broker: at.urls()[0]}}
	for i, name := range []string{"charger-1", "trailer-1", "display-1"} {
		d, err := signals.New(signals.Options{Profile: "steady", Name: name, Seed: o.Seed, Rate: exactRate, Start: time.Now()})
		if err != nil {
			return nil, "", err
		}
		clients = append(clients, fleet.Client{ID: name, Source: fleet.FromDevice(d, 0), Broker: at.urls()[i], Version: byte(4 + i%2), Mix: []byte{2}})
	}
	what := fmt.Sprintf("a car with %d sensors, %.0f messages/s with QoS 1, and three devices with QoS 2 over TCP, TLS and WebSocket, %d messages/s", d.Sensors(), d.Rate(), 3*exactRate)
	return clients, what, nil
}

// replayed makes a sensor of every recording in dir, each as fast as it takes
// to fit into span. Half of the topics are sent with QoS 2.
func replayed(dir string, span time.Duration, at doors) (clients []fleet.Client, what string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, "", fmt.Errorf("looking for recordings: %w", err)
	}
	total := 0
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			continue
		}
		if _, err := recording.RecogniseFile(path); errors.Is(err, recording.ErrUnknown) {
			continue
		} else if err != nil {
			return nil, "", err
		}
		n, length := 0, time.Duration(0)
		for m, err := range recording.ReadFile(path, recording.Options{}) {
			if err != nil {
				return nil, "", err
			}
			n++
			length = m.T
		}
		total += n
		id := "replay-" + strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		clients = append(clients, fleet.Client{
			ID: id, Source: faster(recording.ReadFile(path, recording.Options{}), length, span),
			Broker: at.urls()[len(clients)%len(at.urls())], Version: byte(4 + len(clients)%2), Mix: []byte{1, 2},
		})
	}
	if len(clients) == 0 {
		return nil, "", fmt.Errorf("no recordings in %s", dir)
	}
	return clients, fmt.Sprintf("%d recordings, %d messages with QoS 1 and 2 over TCP, TLS and WebSocket, %.0f messages/s", len(clients), total, float64(total)/span.Seconds()), nil
}

// faster makes a source that lasts for length last for span.
func faster(src fleet.Source, length, span time.Duration) fleet.Source {
	factor := float64(span) / float64(max(length, 1))
	return func(yield func(recording.Message, error) bool) {
		for m, err := range src {
			m.T = time.Duration(float64(m.T) * factor)
			if !yield(m, err) {
				return
			}
		}
	}
}
