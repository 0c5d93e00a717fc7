package conformance

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// check is a clause of a specification and the function that checks it.
type check struct {
	version byte
	id      string // x.x.x-n of [MQTT-x.x.x-n]; "" with what is no clause
	what    string
	fn      func(*T)
}

// clauses5 are those of MQTT 5.
var clauses5 = []check{
	{v5, "1.5.4-1", "ill-formed UTF-8 ends the connection", illFormedText},
	{v5, "1.5.4-2", "U+0000 ends the connection", nullInText},
	{v5, "1.5.4-3", "U+FEFF is kept", textUnaltered},
	{v5, "1.5.5-1", "variable byte integers are minimal, whatever the length", remainingLength},
	{v5, "1.5.7-1", "both strings of a pair are UTF-8", illFormedUserProperty},
	{v5, "2.1.3-1", "reserved flags have their values", reservedFlags},
	{v5, "2.2.1-2", "PUBLISH with QoS 0 has no identifier", answers},
	{v5, "2.2.1-3", "identifiers are not zero", zeroID},
	{v5, "2.2.1-4", "the server's identifiers are not in use", serverIdentifiers},
	{v5, "2.2.1-5", "acknowledgements have the identifier of the PUBLISH", answers},
	{v5, "2.2.1-6", "SUBACK and UNSUBACK have the identifier of the request", unsubscribeUnknown},
	{v5, "2.2.2-1", "no properties are a length of zero", badProperties},
	{v5, "3.1.0-1", "the first packet is CONNECT", firstPacket},
	{v5, "3.1.0-2", "a second CONNECT ends the connection", secondConnect},
	{v5, "3.1.2-1", "the protocol name is MQTT", protocolName},
	{v5, "3.1.2-2", "an unknown protocol version is refused", protocolLevel},
	{v5, "3.1.2-3", "the reserved connect flag is 0", reservedConnectFlag},
	{v5, "3.1.2-4", "clean start discards the session", cleanStart},
	{v5, "3.1.2-5", "the session is resumed", sessionLasts},
	{v5, "3.1.2-6", "where there is no session a new one begins", sessionLasts},
	{v5, "3.1.2-7", "the will is stored", willPublished},
	{v5, "3.1.2-8", "the will is published when the connection breaks", willPublished},
	{v5, "3.1.2-9", "a will that is announced is there", willMissing},
	{v5, "3.1.2-10", "the will is removed by DISCONNECT and by its publication", willDiscarded},
	{v5, "3.1.2-11", "no will, will QoS 0", willQoSAlone},
	{v5, "3.1.2-12", "will QoS is not 3", willQoS3},
	{v5, "3.1.2-13", "no will, will retain 0", willRetainAlone},
	{v5, "3.1.2-14", "will retain 0: not retained", willNotRetained},
	{v5, "3.1.2-15", "will retain 1: retained", willRetained},
	{v5, "3.1.2-16", "user name flag 0: no user name", userNameUnannounced},
	{v5, "3.1.2-17", "user name flag 1: a user name", userNameMissing},
	{v5, "3.1.2-18", "password flag 0: no password", passwordUnannounced},
	{v5, "3.1.2-19", "password flag 1: a password", passwordMissing},
	{v5, "3.1.2-22", "one and a half keep alives of silence end the connection", keepAliveEnds},
	{v5, "3.1.2-23", "the session is kept for its expiry interval", sessionExpiry},
	{v5, "3.1.2-24", "no packet exceeds the client's Maximum Packet Size", maximumPacketSize},
	{v5, "3.1.2-25", "what is too large counts as sent", maximumPacketSizeOthers},
	{v5, "3.1.2-26", "no alias above the client's Topic Alias Maximum", serverAliases},
	{v5, "3.1.2-27", "no alias for a client that takes none", noServerAliases},
	{v5, "3.1.2-28", "no Response Information unasked", responseInformation},
	{v5, "3.1.2-29", "Request Problem Information 0: no explanations", problemInformation},
	{v5, "3.1.3-1", "the fields of the payload in their order", fieldOrder},
	{v5, "3.1.3-2", "sessions belong to client identifiers", sessionsApart},
	{v5, "3.1.3-3", "a client identifier is there", clientIDMissing},
	{v5, "3.1.3-4", "the client identifier is UTF-8", illFormedClientID},
	{v5, "3.1.3-5", "identifiers of 1 to 23 letters and digits are allowed", clientIDAlphabet},
	{v5, "3.1.3-6", "an empty identifier gets a unique one", emptyClientID},
	{v5, "3.1.3-7", "and CONNACK names it", emptyClientID},
	{v5, "3.1.3-9", "a client that is back has no will published", willDelayReturns},
	{v5, "3.1.3-10", "the will keeps its user properties and their order", willProperties},
	{v5, "3.1.3-11", "the will's topic is UTF-8", illFormedWillTopic},
	{v5, "3.1.3-12", "the user name is UTF-8", illFormedUserName},
	{v5, "3.1.4-1", "a malformed CONNECT ends the connection", connectFields},
	{v5, "3.1.4-2", "a CONNECT that is refused ends the connection", refusedConnect},
	{v5, "3.1.4-3", "the older connection of a client gets 0x8E", takeover},
	{v5, "3.1.4-4", "clean start is processed", cleanStart},
	{v5, "3.1.4-5", "CONNECT is answered with CONNACK 0x00", connackFirst},
	{v5, "3.1.4-6", "nothing behind a refused CONNECT is processed", refusedConnect},
	{v5, "3.2.0-1", "CONNACK is the first packet", connackFirst},
	{v5, "3.2.0-2", "there is one CONNACK", connackFirst},
	{v5, "3.2.2-1", "reserved acknowledge flags are 0", connackProperties},
	{v5, "3.2.2-2", "clean start: Session Present 0", cleanStart},
	{v5, "3.2.2-3", "Session Present says whether there is a session", sessionLasts},
	{v5, "3.2.2-6", "a refusal has Session Present 0", refusedConnect},
	{v5, "3.2.2-7", "a refusal ends the connection", refusedConnect},
	{v5, "3.2.2-8", "CONNACK has a code of its own", refusedConnect},
	{v5, "3.2.2-16", "assigned identifiers are new", emptyClientID},
	{v5, "3.2.2-19", "no Reason String that makes CONNACK too large", explanationsGiveWay},
	{v5, "3.2.2-20", "no User Property that makes CONNACK too large", explanationsGiveWay},
	{v5, "3.2.2-22", "without Server Keep Alive the client's holds", serverKeepAlive},
	{v5, "3.3.1-1", "what is sent again has DUP", redelivery},
	{v5, "3.3.1-2", "QoS 0 has no DUP", dupWithQoS0},
	{v5, "3.3.1-3", "DUP is not handed on", dupNotPropagated},
	{v5, "3.3.1-4", "QoS 3 ends the connection", qos3},
	{v5, "3.3.1-5", "a retained message replaces the one before", retainStores},
	{v5, "3.3.1-6", "an empty one removes it", retainClears},
	{v5, "3.3.1-7", "and is not stored", retainClears},
	{v5, "3.3.1-8", "RETAIN 0 stores and replaces nothing", notRetained},
	{v5, "3.3.1-9", "Retain Handling 0 sends always", retainHandling0},
	{v5, "3.3.1-10", "Retain Handling 1 sends to new subscriptions", retainHandling1},
	{v5, "3.3.1-11", "Retain Handling 2 sends never", retainHandling2},
	{v5, "3.3.1-12", "Retain As Published 0 clears RETAIN", retainFlagLive},
	{v5, "3.3.1-13", "Retain As Published 1 keeps RETAIN", retainAsPublished},
	{v5, "3.3.2-1", "the topic name is UTF-8", illFormedTopic},
	{v5, "3.3.2-2", "the topic name has no wildcards", wildcardTopic},
	{v5, "3.3.2-3", "the topic name matches the subscription", wildcards},
	{v5, "3.3.2-4", "Payload Format Indicator unaltered", payloadFormatUnaltered},
	{v5, "3.3.2-5", "an expired message is not delivered", messageExpiry},
	{v5, "3.3.2-6", "the interval is what is left of it", messageExpiry},
	{v5, "3.3.2-7", "aliases end with their connection", aliasPerConnection},
	{v5, "3.3.2-8", "alias 0 is refused", aliasZero},
	{v5, "3.3.2-9", "an alias above the maximum is refused", aliasTooHigh},
	{v5, "3.3.2-11", "no alias above the client's maximum", serverAliases},
	{v5, "3.3.2-12", "all aliases up to the maximum are taken", clientAliases},
	{v5, "3.3.2-13", "the Response Topic is UTF-8", illFormedResponse},
	{v5, "3.3.2-14", "the Response Topic has no wildcards", responseWildcard},
	{v5, "3.3.2-15", "Response Topic unaltered", propertiesUnaltered},
	{v5, "3.3.2-16", "Correlation Data unaltered", propertiesUnaltered},
	{v5, "3.3.2-17", "User Properties unaltered", propertiesUnaltered},
	{v5, "3.3.2-18", "User Properties in their order", propertiesUnaltered},
	{v5, "3.3.2-19", "the Content Type is UTF-8", illFormedContentType},
	{v5, "3.3.2-20", "Content Type unaltered", propertiesUnaltered},
	{v5, "3.3.4-1", "PUBLISH is answered as its QoS says", answers},
	{v5, "3.3.4-2", "overlapping subscriptions: the highest QoS", overlapping},
	{v5, "3.3.4-3", "and the identifiers of all of them", identifiers},
	{v5, "3.3.4-4", "one copy has all identifiers", identifiersOnOne},
	{v5, "3.3.4-5", "several copies have one each", identifiers},
	{v5, "3.3.4-6", "a client's PUBLISH has no Subscription Identifier", identifierFromClient},
	{v5, "3.3.4-7", "more than Receive Maximum ends the connection with 0x93", receiveMaximumOfServer},
	{v5, "3.3.4-9", "no more than the client's Receive Maximum", receiveMaximumOfClient},
	{v5, "3.3.4-10", "and other packets are not delayed by it", receiveMaximumOfClient},
	{v5, "3.4.2-1", "PUBACK has a code of its own", reasonCodes},
	{v5, "3.4.2-2", "no Reason String that makes PUBACK too large", explanationsGiveWay},
	{v5, "3.4.2-3", "no User Property that makes PUBACK too large", explanationsGiveWay},
	{v5, "3.5.2-1", "PUBREC has a code of its own", reasonCodes},
	{v5, "3.5.2-2", "no Reason String that makes PUBREC too large", explanationsGiveWay},
	{v5, "3.5.2-3", "no User Property that makes PUBREC too large", explanationsGiveWay},
	{v5, "3.6.1-1", "wrong flags of PUBREL end the connection", pubrelFlags},
	{v5, "3.6.2-1", "PUBREL has a code of its own", pubrecUnknown},
	{v5, "3.6.2-2", "no Reason String that makes PUBREL too large", explanationsGiveWay},
	{v5, "3.6.2-3", "no User Property that makes PUBREL too large", explanationsGiveWay},
	{v5, "3.7.2-1", "PUBCOMP has a code of its own", pubrelUnknown},
	{v5, "3.7.2-2", "no Reason String that makes PUBCOMP too large", explanationsGiveWay},
	{v5, "3.7.2-3", "no User Property that makes PUBCOMP too large", explanationsGiveWay},
	{v5, "3.8.1-1", "wrong flags of SUBSCRIBE end the connection", subscribeFlags},
	{v5, "3.8.3-1", "filters are UTF-8", illFormedFilter},
	{v5, "3.8.3-2", "SUBSCRIBE has a filter", noFilters},
	{v5, "3.8.3-3", "No Local holds", noLocal},
	{v5, "3.8.3-4", "No Local on a shared subscription ends the connection", noLocalShared},
	{v5, "3.8.3-5", "reserved subscription options end the connection", reservedOptions},
	{v5, "3.8.4-1", "SUBSCRIBE is answered with SUBACK", manyFilters},
	{v5, "3.8.4-2", "with its identifier", manyFilters},
	{v5, "3.8.4-3", "the same filter replaces the subscription", resubscribe},
	{v5, "3.8.4-4", "and loses no message", resubscribeLosesNothing},
	{v5, "3.8.4-5", "several filters are as several SUBSCRIBEs", manyFilters},
	{v5, "3.8.4-6", "a code for each filter", manyFilters},
	{v5, "3.8.4-7", "the code is the granted QoS or a failure", manyFilters},
	{v5, "3.8.4-8", "the QoS is the lower of published and granted", qosMinimum},
	{v5, "3.9.2-1", "no Reason String that makes SUBACK too large", explanationsGiveWay},
	{v5, "3.9.2-2", "no User Property that makes SUBACK too large", explanationsGiveWay},
	{v5, "3.9.3-1", "the codes in the order of the filters", manyFilters},
	{v5, "3.9.3-2", "SUBACK has codes of its own", reasonCodes},
	{v5, "3.10.1-1", "wrong flags of UNSUBSCRIBE end the connection", unsubscribeFlags},
	{v5, "3.10.3-1", "filters are UTF-8", illFormedUnsubscribe},
	{v5, "3.10.3-2", "UNSUBSCRIBE has a filter", noFiltersToUnsubscribe},
	{v5, "3.10.4-1", "filters are compared character by character", unsubscribeStops},
	{v5, "3.10.4-2", "no new messages are added", unsubscribeStops},
	{v5, "3.10.4-3", "deliveries that began are completed", unsubscribeCompletes},
	{v5, "3.10.4-4", "UNSUBSCRIBE is answered with UNSUBACK", unsubscribeUnknown},
	{v5, "3.10.4-5", "with its identifier, also where nothing is deleted", unsubscribeUnknown},
	{v5, "3.10.4-6", "several filters are as several UNSUBSCRIBEs", unsubscribeUnknown},
	{v5, "3.11.2-1", "no Reason String that makes UNSUBACK too large", explanationsGiveWay},
	{v5, "3.11.2-2", "no User Property that makes UNSUBACK too large", explanationsGiveWay},
	{v5, "3.11.3-1", "the codes in the order of the filters", unsubscribeUnknown},
	{v5, "3.11.3-2", "UNSUBACK has codes of its own", reasonCodes},
	{v5, "3.12.4-1", "PINGREQ is answered with PINGRESP", pings},
	{v5, "3.14.0-1", "no DISCONNECT before CONNACK", firstPacket},
	{v5, "3.14.1-1", "wrong flags of DISCONNECT end the connection", disconnectFlags},
	{v5, "3.14.2-1", "DISCONNECT has a code of its own", disconnectCodes},
	{v5, "3.14.2-2", "no Session Expiry Interval in the server's DISCONNECT", takeover},
	{v5, "3.14.2-3", "no Reason String that makes DISCONNECT too large", explanationsGiveWay},
	{v5, "3.14.2-4", "no User Property that makes DISCONNECT too large", explanationsGiveWay},
	{v5, "3.14.4-1", "after DISCONNECT nothing is sent", takeover},
	{v5, "3.14.4-2", "after DISCONNECT the connection is closed", takeover},
	{v5, "3.14.4-3", "DISCONNECT 0x00 discards the will", willDiscarded},
	{v5, "3.15.1-1", "wrong flags of AUTH end the connection", authFlags},
	{v5, "4.1.0-1", "the session lasts while the connection is open", sessionOpen},
	{v5, "4.1.0-2", "the session ends after its interval", sessionExpiry},
	{v5, "4.2-1", "an ordered, lossless stream of bytes is enough", byteStream},
	{v5, "4.3.1-1", "QoS 0 is sent with DUP 0", qosMinimum},
	{v5, "4.3.2-1", "QoS 1: an unused identifier", serverIdentifiers},
	{v5, "4.3.2-2", "QoS 1: first with DUP 0", serverIdentifiers},
	{v5, "4.3.2-3", "QoS 1: unacknowledged until PUBACK", redelivery},
	{v5, "4.3.2-4", "QoS 1: answered with PUBACK", answers},
	{v5, "4.3.2-5", "QoS 1: after PUBACK the identifier is another message", qos1Again},
	{v5, "4.3.3-1", "QoS 2: an unused identifier", serverIdentifiers},
	{v5, "4.3.3-2", "QoS 2: first with DUP 0", serverIdentifiers},
	{v5, "4.3.3-3", "QoS 2: unacknowledged until PUBREC", redelivery},
	{v5, "4.3.3-4", "QoS 2: PUBREC is answered with PUBREL", qosMinimum},
	{v5, "4.3.3-5", "QoS 2: PUBREL is unacknowledged until PUBCOMP", redelivery},
	{v5, "4.3.3-6", "QoS 2: no PUBLISH again after PUBREL", redelivery},
	{v5, "4.3.3-7", "QoS 2: no expiry once PUBLISH was sent", expiryDuringExchange},
	{v5, "4.3.3-8", "QoS 2: answered with PUBREC", answers},
	{v5, "4.3.3-9", "QoS 2: after a negative PUBREC the identifier is another message", negativePubrec},
	{v5, "4.3.3-10", "QoS 2: until PUBREL the same identifier is the same message", qos2Once},
	{v5, "4.3.3-11", "QoS 2: PUBREL is answered with PUBCOMP", qos2Once},
	{v5, "4.3.3-12", "QoS 2: after PUBCOMP the identifier is another message", qos2Once},
	{v5, "4.3.3-13", "QoS 2: the exchange goes on when the message has expired", expiryDuringExchange},
	{v5, "4.4.0-1", "what is unacknowledged comes again with the session, and only then", noRetryWhileConnected},
	{v5, "4.4.0-2", "what was refused does not come again", negativeAck},
	{v5, "4.5.0-1", "messages are added to the sessions that match", sessionLasts},
	{v5, "4.6.0-1", "what comes again comes in its order", redelivery},
	{v5, "4.6.0-2", "PUBACKs in the order of the PUBLISHes", order},
	{v5, "4.6.0-3", "PUBRECs in the order of the PUBLISHes", order},
	{v5, "4.6.0-4", "PUBRELs in the order of the PUBRECs", redelivery},
	{v5, "4.6.0-5", "messages of a topic and QoS in their order", order},
	{v5, "4.6.0-6", "every topic is ordered", order},
	{v5, "4.7.0-1", "no wildcards in topic names", wildcardTopic},
	{v5, "4.7.1-1", "# is the last level and a whole one", badFilters},
	{v5, "4.7.1-2", "+ is a whole level", badFilters},
	{v5, "4.7.2-1", "wildcards at the first level do not match $", dollarTopics},
	{v5, "4.7.3-1", "topics and filters are not empty", emptyTopic},
	{v5, "4.7.3-2", "topics and filters have no U+0000", nullInText},
	{v5, "4.7.3-3", "topics and filters of up to 65,535 bytes", longTopics},
	{v5, "4.7.3-4", "topics are not normalized", textUnaltered},
	{v5, "4.8.2-1", "$share needs a share name", sharedBadNames},
	{v5, "4.8.2-2", "the share name has no wildcards and a filter behind it", sharedBadNames},
	{v5, "4.8.2-3", "shared: the granted QoS holds", sharedQoS},
	{v5, "4.8.2-4", "shared: QoS 2 is completed with the chosen client", sharedQoS2Resumes},
	{v5, "4.8.2-5", "shared: a QoS 2 exchange that broke goes to nobody else", sharedQoS2Resumes},
	{v5, "4.8.2-6", "shared: what was refused goes to nobody else", sharedRefusal},
	{v5, "4.9.0-1", "the send quota starts at the Receive Maximum at most", receiveMaximumOfClient},
	{v5, "4.9.0-2", "at quota 0 no PUBLISH is sent", receiveMaximumOfClient},
	{v5, "4.9.0-3", "at quota 0 all else is served", receiveMaximumOfClient},
	{v5, "4.12.0-1", "an unknown authentication method is refused", authMethodUnknown},
	{v5, "4.12.0-6", "no AUTH and no method where none was named", authUninvited},
	{v5, "4.12.0-7", "AUTH where none was named ends the connection", authUninvited},
	{v5, "4.13.1-1", "malformed packets and protocol errors end the connection", cutShort},
	{v5, "4.13.2-1", "DISCONNECT with a code of 0x80 or more is the end", packetTooLarge},
	{v5, "6.0.0-1", "WebSocket: binary messages, anything else ends the connection", webSocketFrames},
	{v5, "6.0.0-2", "WebSocket: packets are not aligned to messages", webSocketFrames},
	{v5, "6.0.0-4", "WebSocket: the subprotocol is mqtt", webSocketProtocol},
}

// more are checks of what the specification says outside its numbered clauses,
// what this server promises beyond it, and what public suites look for.
var more = []check{
	{v5, "", "CONNACK says what is served", connackProperties},
	{v5, "", "long client identifiers and every character in them", clientIDWide},
	{v5, "", "aliases are used towards clients that take them", serverAliasesUsed},
	{v5, "", "a keep alive of more than a minute is bounded", serverKeepAliveBound},
	{v5, "", "a taken over session goes on", takeoverResumes},
	{v5, "", "any packet keeps a connection alive", keepAliveHolds},
	{v5, "", "any bytes are a payload", anyPayload},
	{v5, "", "packets for clients are refused from clients", notForClients},
	{v5, "", "lengths that cannot be", badLength},
	{v5, "", "a connection without CONNECT is ended", silence},
	{v5, "", "empty payload of a will", willEmpty},
	{v5, "", "a protocol error publishes the will", willOnError},
	{v5, "", "DISCONNECT 0x04 publishes the will", willWithDisconnect4},
	{v5, "", "DISCONNECT with an error publishes the will", willWithCodes},
	{v5, "", "a takeover publishes the will", willOnTakeover},
	{v5, "", "will delay and session expiry", willDelay},
	{v5, "", "clean start ends the wait of a will", willDelayClean},
	{v5, "", "a will's topic has no wildcards", willWildcard},
	{v5, "", "request and response", requestResponse},
	{v5, "", "expiry is unaltered while nothing waits", expiryUnaltered},
	{v5, "", "retained messages expire", retainedExpiry},
	{v5, "", "QoS 2 over new connections, once", qos2Resumes},
	{v5, "", "QoS 2 and a clean start", qos2Clean},
	{v5, "", "acknowledgements that answer nothing", acksUnknown},
	{v5, "", "answers come before what they announce", ackBeforeDelivery},
	{v5, "", "retained messages outlive sessions", retainOutlivesSession},
	{v5, "", "retained messages keep their properties", retainProperties},
	{v5, "", "many retained messages", retainMany},
	{v5, "", "wildcards and retained messages", retainWildcards},
	{v5, "", "No Local over connections", noLocalSession},
	{v5, "", "an empty filter", emptyFilter},
	{v5, "", "topics with $ for who names them", dollarTopicsNamed},
	{v5, "", "subscribing to $SYS", dollarSYS},
	{v5, "", "identifiers of retained and waiting messages", identifiersKept},
	{v5, "", "the expiry interval changes at DISCONNECT", expiryAtDisconnect},
	{v5, "", "but not from 0", expiryFromZero},
	{v5, "", "CONNACK says the expiry interval in use", expirySaid},
	{v5, "", "nothing behind DISCONNECT", disconnectEnds},
	{v5, "", "an empty identifier without clean start", emptyClientIDWithSession},
	{v5, "", "filters that are none are answered one by one", badFiltersAnswered},
	{v5, "", "shared: each message once", sharedOnce},
	{v5, "", "shared: no retained messages", sharedNoRetained},
	{v5, "", "shared: unsubscribe", sharedUnsubscribe},
	{v5, "", "shared: a member leaves", sharedLeaves},
	{v5, "", "shared: beside a plain subscription", sharedAndPlain},
	{v5, "", "everything survives a kill", restart},
	{v5, "", "QoS 2 survives a kill", restartQoS2},
	{v5, "", "wills survive a kill", restartWill},

	{v4, "", "MQTT 3.1 is refused", mqtt31},
	{v4, "", "long client identifiers and every character in them", clientIDWide},
	{v4, "", "a taken over session goes on", takeoverResumes},
	{v4, "", "any packet keeps a connection alive", keepAliveHolds},
	{v4, "", "any bytes are a payload", anyPayload},
	{v4, "", "packets for clients are refused from clients", notForClients},
	{v4, "", "lengths that cannot be", badLength},
	{v4, "", "empty payload of a will", willEmpty},
	{v4, "", "a protocol error publishes the will", willOnError},
	{v4, "", "a takeover publishes the will", willOnTakeover},
	{v4, "", "a will's topic has no wildcards", willWildcard},
	{v4, "", "QoS 2 over new connections, once", qos2Resumes},
	{v4, "", "acknowledgements that answer nothing", acksUnknown},
	{v4, "", "answers come before what they announce", ackBeforeDelivery},
	{v4, "", "many open exchanges", manyOpen},
	{v4, "", "many retained messages", retainMany},
	{v4, "", "topics with $ for who names them", dollarTopicsNamed},
	{v4, "", "subscribing to $SYS", dollarSYS},
	{v4, "", "an unknown PUBREL", pubrelUnknown},
	{v4, "", "an unknown PUBREC", pubrecUnknown},
	{v4, "", "nothing is sent again while the connection lives", noRetryWhileConnected},
	{v4, "", "everything survives a kill", restart},
	{v4, "", "QoS 2 survives a kill", restartQoS2},
}

// TestClauses runs every function of the tables once for each version, all at the
// same time against one server.
func TestClauses(t *testing.T) {
	b := newBroker(t)
	type group struct {
		version byte
		fn      uintptr
	}
	ids := map[group][]string{}
	var order []check
	for _, c := range allChecks() {
		g := group{c.version, reflect.ValueOf(c.fn).Pointer()}
		if _, seen := ids[g]; !seen {
			order = append(order, c)
			ids[g] = nil
		}
		if c.id != "" {
			ids[g] = append(ids[g], "MQTT-"+c.id)
		}
	}
	t.Run("group", func(t *testing.T) {
		for _, c := range order {
			name := fmt.Sprintf("v%s/%s", versionName(c.version), functionName(c.fn))
			clauses := ids[group{c.version, reflect.ValueOf(c.fn).Pointer()}]
			if len(clauses) > 0 {
				name += "[" + strings.Join(clauses, ",") + "]"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if does := mosquittoDiffers[versionName(c.version)+"/"+functionName(c.fn)]; does != "" && mosquittoInstead() {
					t.Skipf("mosquitto: %s", does)
				}
				c.fn(newT(t, b, c.version))
			})
		}
	})
}

func allChecks() (all []check) {
	for _, list := range [][]check{clauses5, clauses311, more} {
		all = append(all, list...)
	}
	return all
}

func functionName(fn func(*T)) string {
	name := runtime.FuncForPC(reflect.ValueOf(fn).Pointer()).Name()
	return name[strings.LastIndexByte(name, '.')+1:]
}

func versionName(v byte) string {
	if v == v5 {
		return "5"
	}
	return "3.1.1"
}
