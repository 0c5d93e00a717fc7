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

// sensors makes the demo's sensors, and says in words what they are.
func sensors(o Options) ([]fleet.Client, string, error) {
	if o.Data != "" {
		return replayed(o.Data, 4*o.Pace)
	}
	const name = "car-1"
	d, err := signals.New(signals.Options{Profile: "car", Name: name, Seed: o.Seed, Start: time.Now()})
	if err != nil {
		return nil, "", err
	}
	what := fmt.Sprintf("a car with %d sensors, %.0f messages/s", d.Sensors(), d.Rate())
	return []fleet.Client{{ID: name, Source: fleet.FromDevice(d, 0)}}, what, nil
}

// replayed makes a sensor of every recording in dir, each as fast as it takes
// to fit into span.
func replayed(dir string, span time.Duration) (clients []fleet.Client, what string, err error) {
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
		clients = append(clients, fleet.Client{ID: id, Source: faster(recording.ReadFile(path, recording.Options{}), length, span)})
	}
	if len(clients) == 0 {
		return nil, "", fmt.Errorf("no recordings in %s", dir)
	}
	return clients, fmt.Sprintf("%d recordings, %d messages, %.0f messages/s", len(clients), total, float64(total)/span.Seconds()), nil
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
