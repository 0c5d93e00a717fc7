package mqttfront

// Reason codes, named after MQTT 5 (section 2.4).
const (
	Success                     byte = 0x00
	NoMatchingSubscribers       byte = 0x10
	UnspecifiedError            byte = 0x80
	MalformedPacket             byte = 0x81
	ProtocolError               byte = 0x82
	ImplementationSpecificError byte = 0x83
	UnsupportedProtocolVersion  byte = 0x84
	ClientIDNotValid            byte = 0x85
	BadUsernameOrPassword       byte = 0x86
	NotAuthorized               byte = 0x87
	ServerUnavailable           byte = 0x88
	ServerBusy                  byte = 0x89
	Banned                      byte = 0x8A
	ServerShuttingDown          byte = 0x8B
	BadAuthenticationMethod     byte = 0x8C
	KeepAliveTimeout            byte = 0x8D
	SessionTakenOver            byte = 0x8E
	TopicFilterInvalid          byte = 0x8F
	TopicNameInvalid            byte = 0x90
	PacketIdentifierInUse       byte = 0x91
	PacketIdentifierNotFound    byte = 0x92
	ReceiveMaximumExceeded      byte = 0x93
	TopicAliasInvalid           byte = 0x94
	PacketTooLarge              byte = 0x95
	QuotaExceeded               byte = 0x97
	AdministrativeAction        byte = 0x98
	PayloadFormatInvalid        byte = 0x99
	RetainNotSupported          byte = 0x9A
	QoSNotSupported             byte = 0x9B
	UseAnotherServer            byte = 0x9C
	ServerMoved                 byte = 0x9D
	ConnectionRateExceeded      byte = 0x9F
)

// connackV3 gives the MQTT 3.1.1 CONNACK return code nearest to a reason code.
func connackV3(code byte) byte {
	switch code {
	case Success:
		return 0
	case 1, 2, 3, 4, 5: // is one already
		return code
	case UnsupportedProtocolVersion:
		return 1
	case ClientIDNotValid:
		return 2
	case MalformedPacket, BadUsernameOrPassword:
		return 4
	case NotAuthorized, Banned, QoSNotSupported, RetainNotSupported, ProtocolError:
		return 5
	}
	return 3 // server unavailable
}
