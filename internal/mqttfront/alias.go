package mqttfront

const (
	maxOutAliases = 64  // topics behind aliases towards a subscriber
	maxOutAlias   = 256 // bytes of such a topic
)

// outAliases are the topic aliases of one connection towards its client: the
// first topics that are sent get one each. A packet that is taken is written or
// the connection ends, so that an alias that was sent is known.
type outAliases struct {
	max int
	m   map[string]uint16
}

// of gives the alias of topic, 0 if it can have none; known says that the client
// has been told.
func (a *outAliases) of(topic string) (alias uint16, known bool) {
	if a.max == 0 || len(topic) > maxOutAlias {
		return 0, false
	}
	if alias, known = a.m[topic]; known || len(a.m) >= a.max {
		return alias, known
	}
	return uint16(len(a.m) + 1), false
}

// learn notes that topic leaves with the alias that of gave.
func (a *outAliases) learn(topic string) {
	if a.m == nil {
		a.m = make(map[string]uint16)
	}
	a.m[topic] = uint16(len(a.m) + 1)
}
