package linkbench

import (
	"bytes"
	"fmt"

	"github.com/eclipse/paho.golang/packets"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// handshake is what CONNECT and CONNACK of a connection take that goes on with
// a session: a device with a secret, one epoch, nothing waiting.
func handshake() (connect, connack int, err error) {
	log := stream.LogID{Name: stream.Epoch{1}, Incarnation: stream.Epoch{2}}
	held := stream.Held{Epoch: stream.Epoch{3}, Lane: stream.Normal, Current: true, Answered: log, Head: 1_000_000}
	settled := stream.EpochCoverage{Epoch: held.Epoch, Lanes: []stream.LaneCoverage{
		{Lane: held.Lane, Settled: stream.NewRangeSet(stream.Range{First: 1, Last: held.Head})},
	}}
	expiry, receive, packet, window, aliases := uint32(0), uint16(16), uint32(64<<10), uint16(1000), uint16(1)
	hello := &packets.Connect{
		ProtocolName: "MQTT", ProtocolVersion: 5, CleanStart: true, KeepAlive: 60, ClientID: device,
		UsernameFlag: true, Username: device, PasswordFlag: true, Password: make([]byte, 32),
		Properties: &packets.Properties{SessionExpiryInterval: &expiry, ReceiveMaximum: &receive, MaximumPacketSize: &packet,
			User: users(append(wire.FormatHeld([]stream.Held{held}), wire.FormatVersion(),
				wire.FormatCodecOffer(wire.CodecOffer{Codec: codec.Learning, Resume: true, Oldest: 9_990, Last: 10_000})))},
	}
	if connect, err = length(hello); err != nil {
		return 0, 0, err
	}
	connack, err = length(&packets.Connack{Properties: &packets.Properties{
		ReceiveMaximum: &window, MaximumPacketSize: &packet, TopicAliasMaximum: &aliases,
		User: users(append(wire.FormatCoverage([]stream.EpochCoverage{settled}), wire.FormatLogID(log),
			wire.FormatCodecGrant(wire.CodecGrant{Codec: codec.Learning, State: codec.DefaultState, Resume: true, At: codec.Position{Bodies: 10_000}}))),
	}})
	return connect, connack, err
}

func users(props []stream.Property) (all []packets.User) {
	for _, p := range props {
		all = append(all, packets.User{Key: p.Key, Value: p.Value})
	}
	return all
}

// length is what a packet takes.
func length(p packets.Packet) (int, error) {
	var b bytes.Buffer
	if _, err := p.WriteTo(&b); err != nil {
		return 0, fmt.Errorf("writing an MQTT packet: %w", err)
	}
	return b.Len(), nil
}
