package obs

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notify tells systemd how the service is. Without systemd (no NOTIFY_SOCKET)
// every method does nothing. Methods are safe for concurrent use.
type Notify struct{ log *slog.Logger }

// NewNotify makes a Notify that logs at debug level what cannot be sent.
func NewNotify(log *slog.Logger) *Notify { return &Notify{log} }

// Ready says that the service has started; status is one line for people.
func (n *Notify) Ready(status string) { n.send(daemon.SdNotifyReady + "\nSTATUS=" + status) }

// Status says in one line what the service does.
func (n *Notify) Status(status string) { n.send("STATUS=" + status) }

// Stopping says that the service stops, and why.
func (n *Notify) Stopping(status string) { n.send(daemon.SdNotifyStopping + "\nSTATUS=" + status) }

// Watchdog pats the service manager's watchdog at half its time while healthy
// returns nil, until ctx ends. Without a watchdog it returns at once.
func (n *Notify) Watchdog(ctx context.Context, healthy func() error) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("watchdog is misconfigured", "error", err)
		return
	}
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		if err := healthy(); err != nil {
			n.log.Error("withholding the watchdog", "error", err)
		} else {
			n.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *Notify) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Debug("telling systemd", "error", err)
	}
}
