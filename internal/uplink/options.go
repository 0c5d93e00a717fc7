package uplink

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// BatchPolicy says when a batch of a lane is closed: at whatever comes first.
// A zero field takes the lane's default.
type BatchPolicy struct {
	Messages int           // at most MaxBatchMessages
	Bytes    int           // of topics and payloads, before encoding
	Age      time.Duration // since the oldest message was accepted; negative: at once
}

// Options are what an uplink needs to know.
type Options struct {
	// Device is the client id and the id of the edge.
	Device string
	// URLs are the hubs, tried in order: tcp:// or mqtt:// (port 1884), tls:// or
	// mqtts:// (port 8884).
	URLs []string
	// Username is Device unless it is set.
	Username string
	// Secret returns the device's secret, read anew for every connection; nil:
	// no user name and no password are sent.
	Secret func() ([]byte, error)
	// TLSConfig gives the configuration of one connection to a tls:// hub, so
	// that renewed certificates count without a restart; nil: the system's
	// roots. ServerName is set from the URL where it is empty.
	TLSConfig func() (*tls.Config, error)
	// Lanes holds the batch policies.
	Lanes map[stream.Lane]BatchPolicy
	// KeepAlive is MQTT's, 1 s to 18 h; default 30 s.
	KeepAlive time.Duration
	// ConnectTimeout bounds dialling, TLS and CONNECT to CONNACK; default 15 s.
	ConnectTimeout time.Duration
	// ProgressTimeout is how long batches may be in flight without any PUBACK
	// before the connection is given up as dead; default 60 s.
	ProgressTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause between two tries; defaults
	// 200 ms and 30 s.
	BackoffMin, BackoffMax time.Duration
	// Codec encodes the batches where the hub takes it; default codec.Learning.
	Codec codec.ID
	// CodecState is the most memory that the codec keeps for the link, in bytes,
	// cut to codec.MinState … codec.MaxState; default codec.DefaultState. The hub
	// may grant less.
	CodecState int
	// CodecKeep is how long what the codec has learned outlives a connection;
	// default 1 h, negative: not at all.
	CodecKeep time.Duration
	// Logger is where events go; nil: nowhere.
	Logger *slog.Logger
}

// MaxBatchMessages is the most messages of a batch.
const MaxBatchMessages = 10_000

// maxBatchBytes keeps a batch below what a hub takes as one group.
const maxBatchBytes = 1 << 20

// defaults are the batch policies: urgent leaves at once, bulk in large batches.
var defaults = map[stream.Lane]BatchPolicy{
	stream.Urgent: {Messages: 200, Bytes: 32 << 10, Age: -1},
	stream.Normal: {Messages: 4000, Bytes: 128 << 10, Age: time.Second},
	stream.Bulk:   {Messages: MaxBatchMessages, Bytes: 256 << 10, Age: 10 * time.Second},
}

func (o Options) withDefaults() Options {
	if o.Username == "" {
		o.Username = o.Device
	}
	lanes := make(map[stream.Lane]BatchPolicy)
	for _, lane := range stream.Lanes {
		p, d := o.Lanes[lane], defaults[lane]
		p.Messages = min(orDefault(p.Messages, d.Messages), MaxBatchMessages)
		p.Bytes = min(orDefault(p.Bytes, d.Bytes), maxBatchBytes)
		if p.Age == 0 {
			p.Age = d.Age
		}
		lanes[lane] = p
	}
	o.Lanes = lanes
	o.KeepAlive = min(max(orDefault(o.KeepAlive, 30*time.Second), time.Second), 18*time.Hour)
	o.ConnectTimeout = orDefault(o.ConnectTimeout, 15*time.Second)
	o.ProgressTimeout = orDefault(o.ProgressTimeout, time.Minute)
	o.BackoffMin = orDefault(o.BackoffMin, 200*time.Millisecond)
	o.BackoffMax = max(orDefault(o.BackoffMax, 30*time.Second), o.BackoffMin)
	if o.Codec != codec.Rows {
		o.Codec = codec.Learning
	}
	o.CodecState = min(max(orDefault(o.CodecState, codec.DefaultState), codec.MinState), codec.MaxState)
	if o.CodecKeep == 0 {
		o.CodecKeep = time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func orDefault[T int | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}
