package mqttfront

// outMessage is one message on its way to a subscriber.
type outMessage struct{}

// outbox holds what is on its way to one subscriber. It is guarded by the mu of
// its session.
type outbox struct{}

func (o *outbox) add(*outMessage) (dropped bool) { return false }

func (o *outbox) take(buf []byte, _ int) []byte { return buf }

func (o *outbox) acked(kind byte, id uint16, code byte) (reply []byte, err *wireError) {
	return nil, nil
}

func (o *outbox) resume(version byte, receiveMax int, maxPacket uint32) {}

func (o *outbox) leave() {}
