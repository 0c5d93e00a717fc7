package mqttfront

import (
	"context"
	"log/slog"
)

// engineLog passes on what mochi logs, at debug level and without what it puts
// beside the message: packets, and with them payloads and passwords.
type engineLog struct{ slog.Handler }

func (h engineLog) Enabled(ctx context.Context, _ slog.Level) bool {
	return h.Handler.Enabled(ctx, slog.LevelDebug)
}

func (h engineLog) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, slog.LevelDebug, "protocol engine: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "client", "remote", "keepalive", "error":
			out.AddAttrs(slog.String(a.Key, a.Value.String()))
		}
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h engineLog) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h engineLog) WithGroup(string) slog.Handler      { return h }
