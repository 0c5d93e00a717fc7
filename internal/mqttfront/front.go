package mqttfront

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Options say how a Front behaves. The zero value of a field means its default.
type Options struct {
	// Listeners are owned by the front from New on. Those made by tls.Listen or
	// tls.NewListener give Peer.TLS.
	Listeners []net.Listener
	// MinVersion is the lowest MQTT protocol level let in, 3 (MQTT 3.1) to 5;
	// default 4.
	MinVersion byte
	// FanOut gives settled messages to local subscribers and keeps retained
	// ones. Without it every SUBSCRIBE is granted as the Session says, and
	// delivers nothing.
	FanOut bool
	// MaxPacketSize bounds a PUBLISH, in bytes, header included; default 256 KiB.
	MaxPacketSize uint32
	// MaxClients connected; default 1,000.
	MaxClients int
	// ConnectTimeout bounds TLS handshake and CONNECT, and then, again,
	// Handler.Connect; default 10 s.
	ConnectTimeout time.Duration
	// WriteTimeout bounds each write to a client; default 10 s.
	WriteTimeout time.Duration
	// MaxInflightMessages bounds the QoS 1 messages of a client that are not
	// acknowledged; default 2,048, at most 65,535.
	MaxInflightMessages int
	// MaxInflightBytes bounds what a client has in flight, QoS 0 included;
	// default 4 MiB. An MQTT 5 client whose Welcome gives both values may have
	// their product.
	MaxInflightBytes int
	// MaxTotalBytes bounds what all clients have in flight; default 64 MiB.
	MaxTotalBytes int64
	// MaxQoS is the highest QoS spoken, 1 or 2; default 2.
	MaxQoS byte
	// MaxKeepAlive bounds the keep alive of MQTT 5 clients that have one, and they
	// are told. Older ones keep theirs. 0: no bound.
	MaxKeepAlive time.Duration
	// MaxSessions bounds the sessions of clients, those away included; default
	// MaxClients + 1,000.
	MaxSessions int
	// MaxSessionExpiry bounds how long a session outlives its connection; default
	// 24 h.
	MaxSessionExpiry time.Duration
	// MaxSubscriptions of one client; default 256.
	MaxSubscriptions int
	// MaxQueuedMessages bounds the QoS 1 and 2 messages that wait for one
	// subscriber; default 1,000.
	MaxQueuedMessages int
	// MaxQueuedBytes bounds what waits for all subscribers; default 16 MiB.
	MaxQueuedBytes int64
	// MaxRetained messages, default 10,000, and MaxRetainedBytes of memory for
	// them, default 32 MiB.
	MaxRetained      int
	MaxRetainedBytes int64
	// MaxTopicLevels of a topic or filter; default 64.
	MaxTopicLevels int
	// Store keeps sessions, retained messages and wills over a restart; nil keeps
	// them in memory.
	Store Store
	// Now reads the clocks, for what expires across restarts; nil reads the wall
	// clock and believes it.
	Now func() stream.Moment
	// Logger; nil discards.
	Logger *slog.Logger

	drain time.Duration // what a stop waits for acknowledgements; default 500 ms
}

func (o Options) withDefaults() Options {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	large := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.MaxClients, 1000)
	def(&o.MaxSessions, o.MaxClients+1000)
	def(&o.MaxSubscriptions, 256)
	def(&o.MaxQueuedMessages, 1000)
	def(&o.MaxRetained, 10_000)
	def(&o.MaxTopicLevels, 64)
	large(&o.MaxTotalBytes, 64<<20)
	large(&o.MaxQueuedBytes, 16<<20)
	large(&o.MaxRetainedBytes, 32<<20)
	wait(&o.MaxSessionExpiry, 24*time.Hour)
	def(&o.MaxInflightMessages, 2048)
	def(&o.MaxInflightBytes, 4<<20)
	o.MaxInflightMessages = min(o.MaxInflightMessages, 65535)
	wait(&o.ConnectTimeout, 10*time.Second)
	wait(&o.WriteTimeout, 10*time.Second)
	wait(&o.drain, 500*time.Millisecond)
	if o.MaxPacketSize == 0 {
		o.MaxPacketSize = 256 << 10
	}
	o.MaxPacketSize = min(o.MaxPacketSize, 256<<20) // [MQTT-2.1.4]: a remaining length has four bytes
	if o.MinVersion == 0 {
		o.MinVersion = 4
	}
	if o.MaxQoS != 1 {
		o.MaxQoS = 2
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Front is the server. Make it with New, start it with Run.
type Front struct {
	o         Options
	handler   Handler
	log       *slog.Logger
	began     time.Time
	local     *local
	fan       *fanOut // nil without FanOut
	n         counters
	notes     notes
	tasks     tasks
	seats     seats
	wills     waitingWills
	strangers strangers
	partials  partials
	topics    topicMemory

	stopping atomic.Bool
	bytes    atomic.Int64 // in flight, all clients
	held     atomic.Int64 // bytes of QoS 2 messages that wait for their release
	stalls   atomic.Int64 // len(stalled)

	helloBytes atomic.Int64 // see roomFor
	lingering  atomic.Int64 // connections that are over, but not closed

	mu      sync.Mutex
	conns   map[*conn]struct{} // guarded by mu
	stalled map[*conn]struct{} // guarded by mu
	serving sync.WaitGroup     // one for each of conns
}

// New makes a Front that asks h. It owns o.Listeners from now on: Run closes
// them when it ends.
func New(h Handler, o Options) *Front {
	f := &Front{
		o: o.withDefaults(), handler: h, began: time.Now(),
		conns: make(map[*conn]struct{}), stalled: make(map[*conn]struct{}),
		n:     counters{refusals: map[byte]int64{}, kinds: map[string]int64{}, dropped: map[string]int64{}},
		wills: waitingWills{m: map[string]waitingWill{}}, seats: seats{m: map[string]*seat{}},
	}
	f.log = f.o.Logger
	f.local = newLocal(f)
	if f.o.FanOut {
		f.fan = newFanOut(f)
	}
	return f
}

// Clients is the number of clients that are admitted and connected.
func (f *Front) Clients() int { return int(f.n.clients.Load()) }

// tasks are goroutines that are started on demand and waited for at the end.
type tasks struct {
	mu      sync.Mutex
	stopped bool // guarded by mu
	wg      sync.WaitGroup
}

// start runs task on a goroutine of its own, unless stop was called.
func (t *tasks) start(task func()) {
	t.mu.Lock()
	if t.stopped {
		t.mu.Unlock()
		return
	}
	t.wg.Add(1)
	t.mu.Unlock()
	go func() {
		defer t.wg.Done()
		task()
	}()
}

func (t *tasks) stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.wg.Wait()
}
