package recording

// PublishSize is what a PUBLISH with QoS 1 takes in MQTT 5, in bytes: fixed
// header, topic, packet id, properties (a topic alias or none), payload.
func PublishSize(topic int, alias bool, payload int) int {
	n := 2 + topic + 2 + 1 + payload
	if alias {
		n += 3
	}
	length := 1
	for rest := n >> 7; rest > 0; rest >>= 7 {
		length++
	}
	return 1 + length + n
}
