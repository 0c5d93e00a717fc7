package mqttfront

import (
	"sync"
	"time"
)

// session is what MQTT calls a session: the state of one client id, which lives
// on while the client is away for as long as it asked for. Its outbound half
// (subs, out) is in subscribe.go and outbox.go.
type session struct {
	f   *Front
	id  string // client id
	key string // names it in the Store: 16 hex digits

	mu     sync.Mutex
	stored bool          // there may be keys of it in the Store; guarded by mu
	ended  bool          // nothing is kept any more; guarded by mu
	conn   *conn         // nil while the client is away; guarded by mu
	expiry time.Duration // how long it outlives its connection; guarded by mu
	away   time.Time     // since when, while conn is nil; guarded by mu

	subs subscriptions // guarded by mu
	out  outbox        // guarded by mu
}

// wake sees to it that what was added to out is sent. The caller holds mu.
func (s *session) wake() {
	if s.conn != nil {
		s.conn.kick()
	}
}
