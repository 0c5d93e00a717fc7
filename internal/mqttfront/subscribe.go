package mqttfront

// subscriptions are those of one session, guarded by its mu.
type subscriptions struct{}

// subscribe handles a SUBSCRIBE: body is what follows the fixed header. The
// answer goes through conn.answer, once for each packet. Connection's goroutine.
func (c *conn) handleSubscribe(first byte, body []byte) *wireError { return nil }

// unsubscribe handles an UNSUBSCRIBE likewise.
func (c *conn) handleUnsubscribe(first byte, body []byte) *wireError { return nil }

// dropSubscriptions ends the outbound half of a session that ends, and returns
// the changes that remove it from the Store. It locks s.mu itself.
func (f *Front) dropSubscriptions(s *session) []Change { return nil }

// loadSubscription takes an f/ key of the Store; false: it cannot be read.
func (s *session) loadSubscription(key string, value []byte) bool { return false }

// loadOutbound takes an m/ key of the Store; false: it cannot be read.
func (s *session) loadOutbound(key string, value []byte) bool { return false }
