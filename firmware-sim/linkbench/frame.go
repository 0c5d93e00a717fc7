package linkbench

// What carries MQTT. A TLS 1.3 record has a header, a content type and a tag;
// a segment of TCP over IPv4 has 40 bytes of headers, 52 with the timestamps
// that most systems send, and holds what then is left of 1,500 bytes.
const (
	tlsRecord   = 5 + 1 + 16
	tlsContent  = 16 << 10
	tcpHeaders  = 20 + 20 + 12
	segmentSize = 1500 - tcpHeaders
	puback      = 4
)

// carried is what n bytes take that are written at once, with TLS 1.3 and TCP/IPv4.
func carried(n int) int {
	n += tlsRecord * ((n + tlsContent - 1) / tlsContent)
	return n + tcpHeaders*((n+segmentSize-1)/segmentSize)
}
