// Package obs shows what a program does: structured logs, metrics for
// Prometheus, health and readiness over HTTP, the service manager's
// notifications and the version of the build.
//
// It promises that a scrape takes one snapshot of each source, so that the
// figures of one source agree, and that nothing here can stop the program. It
// keeps no global registry and reads no configuration file.
package obs

import (
	"fmt"
	"io"
	"log/slog"
)

// Format is how log lines are written.
type Format string

// The formats.
const (
	Text Format = "text" // key=value, for people and the journal
	JSON Format = "json" // one object a line, for machines
)

// UnmarshalText reads a format's name.
func (f *Format) UnmarshalText(b []byte) error {
	switch Format(b) {
	case Text, JSON:
		*f = Format(b)
		return nil
	}
	return fmt.Errorf("%.40q is not a log format: write text or json", b)
}

// LogConfig is the log part of a configuration.
type LogConfig struct {
	Level  Level  `yaml:"level" doc:"least important lines written: debug, info, warn or error"`
	Format Format `yaml:"format" doc:"text for people, json for machines"`
}

// DefaultLog is what is logged unless something else is configured.
func DefaultLog() LogConfig { return LogConfig{Level: Level(slog.LevelInfo), Format: Text} }

// Level is a slog.Level that is written in lower case.
type Level slog.Level

var levels = map[string]Level{"debug": Level(slog.LevelDebug), "info": Level(slog.LevelInfo),
	"warn": Level(slog.LevelWarn), "error": Level(slog.LevelError)}

// UnmarshalText reads debug, info, warn or error.
func (l *Level) UnmarshalText(b []byte) error {
	v, ok := levels[string(b)]
	if !ok {
		return fmt.Errorf("%.40q is not a log level: write debug, info, warn or error", b)
	}
	*l = v
	return nil
}

// MarshalText writes the level's name.
func (l Level) MarshalText() ([]byte, error) {
	for name, v := range levels {
		if v == l {
			return []byte(name), nil
		}
	}
	return []byte(slog.Level(l).String()), nil
}

// NewLogger writes what c asks for to w, which must be safe for the writes of
// one goroutine at a time; lines are written whole.
func NewLogger(w io.Writer, c LogConfig) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.Level(c.Level)}
	if c.Format == JSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
