package ingest

import (
	"log/slog"
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/commitlog"
)

// Options of an Ingest. A zero field takes the default.
type Options struct {
	// WindowMessages is how many batches of a device may be unanswered;
	// default 16. When WindowBytes runs low new sessions get fewer, at least
	// MinWindow; default 2.
	WindowMessages, MinWindow int
	// PacketBytes bounds one encoded batch; default 512 KiB. Its content,
	// topics and payloads, is bounded by commitlog.MaxGroupBytes.
	PacketBytes int
	// WindowBytes is what all windows (messages x PacketBytes) may add up to;
	// default 8 GiB. Beyond it devices are busy. Windows are seldom full, so
	// it may be more than there is memory; PendingBytes is the bound on that.
	WindowBytes int64
	// PendingBytes bounds the memory of all batches that are admitted and not
	// settled, as estimated; default 256 MiB. Beyond it batches are refused.
	PendingBytes int64
	// GroupBytes and GroupRecords bound one append to the log; default and
	// maximum: commitlog.MaxGroupBytes and MaxGroupRecords.
	GroupBytes, GroupRecords int
	// MaxIdle is how many devices that are not connected are remembered for
	// Devices; default 10,000, the one gone longest is dropped first.
	MaxIdle int
	// CodecState is how many bytes of what it has learned the codec session of
	// a device may keep in memory, codec.MinState to codec.MaxState; default
	// codec.DefaultState. Negative: none, every batch is self-contained.
	CodecState int
	// CodecTotal bounds what all sessions keep, those of devices that are away
	// included; default 1 GiB. A batch is counted when it is decoded, so that
	// as many as there are processors may exceed it for that long. At the bound
	// kept sessions are dropped, and then the one that grows: its device goes
	// on with self-contained batches.
	CodecTotal int64
	// CodecKeep and CodecKept are how long, and for how many devices, a session
	// is kept when its connection has ended, so that the next one goes on with
	// it; default 1 h and 10,000. Negative: not at all.
	CodecKeep time.Duration
	CodecKept int
	// ConnectWait bounds Connect; default 5 s.
	ConnectWait time.Duration
	// ComeBack is how many devices a second are asked to come again when they
	// cannot be served; default 200.
	ComeBack int
	// StopGrace bounds the appends that are under way when Run's context
	// ends; default 5 s.
	StopGrace time.Duration
	// Logger is never nil after New; default: discard.
	Logger *slog.Logger
}

// Fixed times. Every one is jittered where many devices could meet.
const (
	retryRefused   = time.Second      // after a refusal that should pass quickly
	retryNoSpace   = 15 * time.Second // an operator or retention has to make room
	retryCoverage  = 60 * time.Second // only an operator can help
	firstBackoff   = 50 * time.Millisecond
	maxBackoff     = 5 * time.Second
	steadyAfter    = 30 * time.Second // an ownership that lasted so long starts the back-off anew
	incarnationGap = 10 * time.Minute // between incarnations taken on a device's word
)

// rejectedInARow: after so many rejections of single entries, with none that
// was taken, the rest of a group is not tried one by one.
const rejectedInARow = 8

func (o Options) withDefaults() Options {
	set(&o.WindowMessages, 16)
	set(&o.MinWindow, 2)
	o.MinWindow = min(o.MinWindow, o.WindowMessages)
	set(&o.PacketBytes, 512<<10)
	set(&o.WindowBytes, 8<<30)
	set(&o.PendingBytes, 256<<20)
	set(&o.GroupBytes, commitlog.MaxGroupBytes)
	set(&o.GroupRecords, commitlog.MaxGroupRecords)
	o.GroupBytes = min(o.GroupBytes, commitlog.MaxGroupBytes)
	o.GroupRecords = min(o.GroupRecords, commitlog.MaxGroupRecords)
	set(&o.MaxIdle, 10_000)
	setZero(&o.CodecState, codec.DefaultState)
	set(&o.CodecTotal, 1<<30)
	setZero(&o.CodecKeep, time.Hour)
	setZero(&o.CodecKept, 10_000)
	set(&o.ConnectWait, 5*time.Second)
	set(&o.ComeBack, 200)
	set(&o.StopGrace, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func setZero[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func set[T int | int64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}
