package mqttfront

// local is what the front knows of local subscribers: Front.local, made by
// newLocal before anything is loaded from the Store.
type local struct{ f *Front }

func newLocal(f *Front) *local { return &local{f: f} }

// initLocal prepares the outbound half of a new session (also of one that was
// read from the Store), before anybody else sees it.
func (s *session) initLocal() {}

// loadRetained takes an r/ key of the Store; false: it cannot be read.
func (l *local) loadRetained(key string, value []byte) bool { return false }

// retainChange is called before Session.Publish of a message with p.Retain when
// the front has FanOut. It decides whether the message will be retained, and
// returns what p.Save must have for that. Until retainHanded, which is called when
// Session.Publish has returned, other retained messages of the topic wait, so
// that Store and memory see them in one order. origin is the client id.
// Afterwards either fanOut.offer or fanOut.refuse is called for the message.
func (l *local) retainChange(origin string, p *Publish) []Change { return nil }

func (l *local) retainHanded(p *Publish) {}

// refuse is called instead of offer for a message with Retain that goes to no
// local subscriber: refused, withheld, NoFanOut.
func (o *fanOut) refuse(p *Publish) {}

// wants reports whether a settled message is worth an offer: it is retained, or
// somebody has subscribed to something.
func (o *fanOut) wants(p *Publish) bool { return true }

// The gauges of Stats.
func (l *local) subscriptions() int64            { return 0 }
func (l *local) retained() int64                 { return 0 }
func (l *local) queued() (messages, bytes int64) { return 0, 0 }
