package soak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/firmware-sim/fleet"
	"github.com/packetboat/packetboat/firmware-sim/signals"
	"github.com/packetboat/packetboat/internal/rig/receipts"
)

// sensors is how many honest ones there are: two over TCP, one over TLS and one
// over WebSocket.
const sensors = 4

// honest is who has a right to be served: sensors with receipts, and an on-board
// display that looks at all they say.
type honest struct {
	w      *world
	fleets [sensors]*fleet.Fleet // one sensor each, so that none starves unseen
	writer *receipts.Writer
	what   string

	silence func()        // ends the sensors
	done    chan struct{} // closed when they have ended
	err     error         // theirs, set before done is closed
	leave   func()        // ends the display
	wg      sync.WaitGroup

	shown    atomic.Int64 // messages that the display got
	displays atomic.Int64 // connections of the display
}

func newHonest(w *world, o Options) (_ *honest, err error) {
	h := &honest{w: w, done: make(chan struct{}), silence: func() {}, leave: func() {}}
	if h.writer, err = receipts.Append(w.path("receipts")); err != nil {
		return nil, err
	}
	for i, door := range [sensors]string{"tcp://" + w.mqtt, "tcp://" + w.mqtt, "tls://" + w.mqtts, "ws://" + w.ws} {
		d, err := signals.New(signals.Options{Profile: "steady", Name: name(i), Seed: o.Seed, Rate: o.Rate / sensors, Start: time.Now()})
		if err == nil {
			h.fleets[i], err = fleet.New([]fleet.Client{{ID: name(i), Source: fleet.FromDevice(d, 0)}}, fleet.Options{
				Broker: door, Version: byte(4 + i%2), TLS: w.cert.Client,
				Username: "honest", Password: w.honestPassword, Mix: []byte{1, 2}, Window: 50, Speed: 1, Receipts: h.writer,
			})
		}
		if err != nil {
			return nil, errors.Join(err, h.writer.Close())
		}
	}
	h.what = fmt.Sprintf("%d honest sensors, %.0f messages/s, QoS 1 and 2, over TCP, TLS and WebSocket, and a display", sensors, o.Rate)
	return h, nil
}

// name is that of a sensor, and the first level of its topics.
func name(i int) string { return fmt.Sprintf("honest-%d", i+1) }

// begin lets everybody speak until silence and leave.
func (h *honest) begin(ctx context.Context) {
	speak, silence := context.WithCancel(ctx)
	h.silence = silence
	go func() {
		var wg sync.WaitGroup
		var errs [sensors]error
		for i, f := range h.fleets {
			wg.Go(func() { errs[i] = f.Run(speak) })
		}
		wg.Wait()
		h.err = errors.Join(errs[:]...)
		close(h.done)
	}()
	look, leave := context.WithCancel(ctx)
	h.leave = leave
	h.wg.Go(func() { h.display(look) })
}

// close ends everybody and the receipts.
func (h *honest) close() error {
	h.silence()
	h.leave()
	h.wg.Wait()
	<-h.done
	return errors.Join(h.err, h.writer.Close())
}

// display subscribes, and subscribes again whenever the edge was away.
func (h *honest) display(ctx context.Context) {
	for ctx.Err() == nil {
		if err := h.look(ctx); err != nil {
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// look is one connection of the display.
func (h *honest) look(ctx context.Context) error {
	c, err := h.connect(ctx, func(paho.PublishReceived) (bool, error) {
		h.shown.Add(1)
		return true, nil
	})
	if err != nil {
		return err
	}
	var filters []paho.SubscribeOptions
	for i := range sensors {
		filters = append(filters, paho.SubscribeOptions{Topic: name(i) + "/#", QoS: 1})
	}
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: filters}); err != nil {
		_ = c.Disconnect(&paho.Disconnect{}) // it is gone already
		return fmt.Errorf("subscribing: %w", err)
	}
	h.displays.Add(1)
	select {
	case <-c.Done():
		return errors.New("the connection ended")
	case <-ctx.Done():
		return c.Disconnect(&paho.Disconnect{})
	}
}

func (h *honest) connect(ctx context.Context, received func(paho.PublishReceived) (bool, error)) (*paho.Client, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	nc, err := d.DialContext(ctx, "tcp", h.w.mqtt)
	if err != nil {
		return nil, err
	}
	c := paho.NewClient(paho.ClientConfig{
		Conn: nc, PacketTimeout: 30 * time.Second, OnPublishReceived: []func(paho.PublishReceived) (bool, error){received},
	})
	hello := &paho.Connect{
		ClientID: "display", KeepAlive: 10, CleanStart: true, UsernameFlag: true, Username: "honest", PasswordFlag: true, Password: []byte(h.w.honestPassword),
	}
	if _, err := c.Connect(ctx, hello); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("connecting: %w", err)
	}
	return c, nil
}
