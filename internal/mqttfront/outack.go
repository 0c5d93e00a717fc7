package mqttfront

// acked handles PUBACK, PUBREC and PUBCOMP (kind is the packet type) of the
// client; code is Success before MQTT 5. The caller queues reply and then wakes
// the session: PUBRELs and what the window lets through leave by take.
func (o *outbox) acked(kind byte, id uint16, code byte) (reply []byte, err *wireError) {
	if id == 0 {
		return nil, &wireError{ProtocolError, "protocol", "acknowledgement of packet identifier 0"}
	}
	for i := range o.released {
		if o.released[i].id == id {
			return o.ackReleased(i, kind)
		}
	}
	for i := range o.sent {
		s := &o.sent[i]
		if s.id != id {
			continue
		}
		switch {
		case kind == typePuback && s.qos == 1, kind == typePubrec && s.qos == 2 && code >= UnspecifiedError: // [MQTT-4.3.3-4]
			o.removeSent(i)
			return nil, nil
		case kind == typePubrec && s.qos == 2:
			o.receive(i)
			return nil, nil
		}
		return nil, &wireError{ProtocolError, "protocol", "acknowledgement does not fit the QoS of the message"}
	}
	// Answered twice, given up meanwhile, or never sent. A client that waits for
	// a PUBREL gets one, so that it can forget the message.
	o.l.strayAck()
	if kind != typePubrec || code >= UnspecifiedError {
		return nil, nil
	}
	if o.version < 5 {
		return appendPubrel(nil, id), nil
	}
	return []byte{typePubrel<<4 | 2, 3, byte(id >> 8), byte(id), PacketIdentifierNotFound}, nil
}

// ackReleased handles an answer to a message whose PUBREC has come.
func (o *outbox) ackReleased(i int, kind byte) (reply []byte, err *wireError) {
	switch kind {
	case typePubcomp:
		s := o.released[i]
		if s.wire {
			o.busy--
		}
		o.released = append(o.released[:i], o.released[i+1:]...)
		if i < o.releases {
			o.releases--
		}
		o.finish(&s)
		return nil, nil
	case typePubrec:
		if i < o.releases {
			return appendPubrel(nil, o.released[i].id), nil
		}
		return nil, nil
	}
	return nil, &wireError{ProtocolError, "protocol", "PUBACK for a QoS 2 message"}
}

// receive takes the PUBREC of sent[i]: the client has the message.
func (o *outbox) receive(i int) {
	s := o.sent[i]
	o.takeSent(i)
	if s.m != nil {
		o.bytes -= s.m.cost()
		o.l.release(s.m)
		s.m = nil
	}
	s.released = true
	o.released = append(o.released, s)
	o.saveReceived(&o.released[len(o.released)-1])
}

// removeSent ends the delivery of sent[i].
func (o *outbox) removeSent(i int) {
	s := o.sent[i]
	o.takeSent(i)
	if s.wire {
		o.busy--
	}
	o.finish(&s)
}

// takeSent takes sent[i] out of the list.
func (o *outbox) takeSent(i int) {
	if i >= len(o.sent)-o.resend {
		o.resend--
	}
	copy(o.sent[i:], o.sent[i+1:])
	o.sent[len(o.sent)-1] = slot{}
	o.sent = o.sent[:len(o.sent)-1]
}

func appendPubrel(dst []byte, id uint16) []byte {
	return append(dst, typePubrel<<4|2, 2, byte(id>>8), byte(id))
}
