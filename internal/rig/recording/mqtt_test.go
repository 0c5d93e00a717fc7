package recording

import (
	"bytes"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"
)

// What is computed is what a client writes.
func TestPublishSize(t *testing.T) {
	for _, topic := range []int{0, 1, 30, 200} {
		for _, payload := range []int{0, 1, 100, 117, 118, 119, 120, 121, 122, 123, 124, 16_000, 16_370, 16_380, 3 << 20} {
			for _, alias := range []bool{false, true} {
				p := &packets.Publish{QoS: 1, PacketID: 7, Topic: strings.Repeat("t", topic), Payload: make([]byte, payload), Properties: &packets.Properties{}}
				if alias {
					one := uint16(1)
					p.Properties.TopicAlias = &one
				}
				var b bytes.Buffer
				if _, err := p.WriteTo(&b); err != nil {
					t.Fatal(err)
				}
				if got := PublishSize(topic, alias, payload); got != b.Len() {
					t.Errorf("topic %d, payload %d, alias %t: %d bytes, a client writes %d", topic, payload, alias, got, b.Len())
				}
			}
		}
	}
}
