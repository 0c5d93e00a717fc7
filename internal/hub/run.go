package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/packetboat/packetboat/internal/obs"
)

// part is a component that runs: something with a Run(ctx) that blocks.
type part struct {
	name string
	end  context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed
}

// start runs a component until its stop is called. Its context keeps ctx's
// values, not its end: each part ends in its turn. failed is told when it ends
// by itself.
func start(ctx context.Context, name string, failed func(error), run func(context.Context) error) *part {
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	p := &part{name: name, end: end, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := run(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("ended by itself")
			}
			failed(fmt.Errorf("%s: %w", name, err))
			return // the failure is the reason for the stop, not a second one
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			p.err = fmt.Errorf("stopping %s: %w", name, err)
		}
	}()
	return p
}

// stop ends the part and waits for it.
func (p *part) stop() error {
	p.end()
	<-p.done
	return p.err
}

// Run serves until ctx ends or a part fails, and stops in order. It returns nil
// after a stop that was asked for, and closes the hub in any case.
func (h *Hub) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var once sync.Once
	var failure error // written once, before ctx ends
	failed := func(err error) {
		once.Do(func() {
			failure = err
			cancel(err)
		})
	}
	notify := obs.NewNotify(h.log)

	store := start(ctx, "commit log", failed, h.store.Run)
	taking := start(ctx, "ingest", failed, h.ingest.Run)
	serving := h.startHTTP(ctx, failed)
	front := start(ctx, "mqtt", failed, h.front.Run)
	expelling := start(ctx, "device check", failed, h.bridge.recheck)
	watchdog := start(ctx, "watchdog", failed, func(ctx context.Context) error {
		notify.Watchdog(ctx, h.health.CheckAlive)
		<-ctx.Done()
		return nil
	})
	h.announce()
	notify.Ready("serving devices on " + h.addresses())

	<-ctx.Done()
	reason := context.Cause(ctx)
	h.log.Info("stopping", "reason", reason)
	notify.Stopping("stopping: " + reason.Error())
	errs := []error{
		expelling.stop(),
		front.stop(),    // no batch comes in any more
		taking.stop(),   // what came in is committed or refused
		serving.stop(),  // nobody reads any more
		watchdog.stop(), // until here a stop that hangs is noticed
		store.stop(),    // retention
		h.store.Close(), // the lock goes last
	}
	once.Do(func() {}) // no part writes failure any more
	err := errors.Join(append([]error{failure}, errs...)...)
	if err != nil {
		h.log.Error("stopped", "error", err)
		return err
	}
	h.log.Info("stopped")
	return nil
}

func (h *Hub) startHTTP(ctx context.Context, failed func(error)) *part {
	return start(ctx, "http", failed, func(ctx context.Context) error {
		if h.http == nil {
			<-ctx.Done()
			return nil
		}
		return obs.Serve(ctx, h.http, h.api, h.log.With("component", "http"))
	})
}

func (h *Hub) announce() {
	for _, l := range h.mqtt {
		h.log.Info("listening", "for", "mqtt", "address", l.Addr().String())
	}
	if h.http != nil {
		h.log.Info("listening", "for", "http", "address", h.http.Addr().String())
	}
	h.log.Info("hub is running", "log", h.store.ID().String(), "shards", h.store.Shards(), "devices_with_secret", h.devices.len(), "version", obs.Version().Version)
}

// addresses names the listeners for devices.
func (h *Hub) addresses() string {
	var all []string
	for _, l := range h.mqtt {
		all = append(all, l.Addr().String())
	}
	return strings.Join(all, ", ")
}

// MQTTAddrs are the addresses that devices can connect to, TLS first.
func (h *Hub) MQTTAddrs() (all []net.Addr) {
	for _, l := range h.mqtt {
		all = append(all, l.Addr())
	}
	return all
}

// HTTPAddr is the address of the API, nil when it is off.
func (h *Hub) HTTPAddr() net.Addr {
	if h.http == nil {
		return nil
	}
	return h.http.Addr()
}
