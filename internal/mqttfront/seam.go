package mqttfront

// What the core asks of the outbound half beyond its first seam.

// localIdle reports whether the outbound half of a session holds nothing that a
// client would miss: no subscriptions, no messages. The caller holds mu.
func (s *session) localIdle() bool { return true }

// awaited reports whether a subscription of a stored session matches topic: then
// a QoS 2 message has to outlive a restart between PUBREC and PUBREL.
func (l *local) awaited(topic string) bool { return false }
