package mqttfront

// outMessage is one message on its way to subscribers.
type outMessage struct{}

// outbox holds what is on its way to one subscriber. It is guarded by the mu of
// its session.
type outbox struct{}

// add queues a message; dropped says that it did not fit, which is counted.
func (o *outbox) add(*outMessage) (dropped bool) { return false }

// take appends whole packets that may leave now, until about room bytes were
// appended (the last packet may exceed it). If at least room bytes were
// appended, there may be more: the writer takes again after its write.
func (o *outbox) take(buf []byte, _ int) []byte { return buf }

// acked handles PUBACK, PUBREC and PUBCOMP (kind is the packet type) of the
// client; code is Success before MQTT 5. The caller queues reply and then wakes
// the session: PUBRELs and what the window lets through leave by take.
func (o *outbox) acked(kind byte, id uint16, code byte) (reply []byte, err *wireError) {
	return nil, nil
}

// resume is called, with session.conn set, when a connection takes the session
// over, and for the first one. maxPacket 0: no limit. aliases is the client's
// Topic Alias Maximum.
func (o *outbox) resume(version byte, receiveMax int, maxPacket uint32, aliases uint16) {}

// leave is called when that connection ends, with session.conn nil.
func (o *outbox) leave() {}

// answered is called by the writer when it has appended the bytes of one
// conn.answer to what it writes: what follows a SUBACK may leave then.
func (o *outbox) answered() {}
