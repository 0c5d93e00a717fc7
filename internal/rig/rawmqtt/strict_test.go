package rawmqtt

import (
	"errors"
	"strings"
	"testing"
)

func first(b byte) Wire { return Wire{First: &b} }

// Each row is a packet that its sender must not send, and the clause that says so.
func TestStrict(t *testing.T) {
	for name, tc := range map[string]struct {
		p       Packet
		version byte
		sender  Sender
		clause  string
	}{
		"long varint":            {Raw{0xD0, 0x80, 0x00}, V5, FromServer, "[MQTT-1.5.5-1]"},
		"five byte varint":       {Raw{0xD0, 0x80, 0x80, 0x80, 0x80, 1}, V5, FromServer, "1.5.5"},
		"two packets":            {Raw{0xD0, 0, 0xD0, 0}, V5, FromServer, "2.1.4"},
		"type 0":                 {Raw{0x00, 0}, V5, FromServer, "2.1.2"},
		"AUTH in 3.1.1":          {Raw{0xF0, 0}, V311, FromServer, "2.1.2"},
		"server subscribes":      {&Subscribe{ID: 1, Filters: []Filter{{"a", 0}}}, V5, FromServer, "2.1.2"},
		"flags":                  {&Pingresp{first(0xD1)}, V5, FromServer, "[MQTT-2.1.3-1]"},
		"PUBREL flags":           {&Ack{Wire: first(0x60), Kind: PUBREL, ID: 1}, V5, FromServer, "[MQTT-2.1.3-1]"},
		"PINGRESP body":          {&Pingresp{Wire{Extra: []byte{0}}}, V5, FromServer, "2.1.4"},
		"CONNACK flags":          {Raw{0x20, 3, 2, 0, 0}, V5, FromServer, "[MQTT-3.2.2-1]"},
		"CONNACK code":           {&Connack{Code: 1}, V5, FromServer, "[MQTT-3.2.2-8]"},
		"CONNACK code 3.1.1":     {&Connack{Code: 6}, V311, FromServer, "3.2.2.3"},
		"present and refused":    {&Connack{SessionPresent: true, Code: 0x87}, V5, FromServer, "[MQTT-3.2.2-6]"},
		"no property length":     {&Connack{Wire: Wire{Cut: 1}}, V5, FromServer, "1.5.5"},
		"properties cut":         {&Connack{Wire: Wire{PropertyLength: []byte{9}}}, V5, FromServer, "2.2.2.1"},
		"property twice":         {&Connack{Properties: Properties{Num(ReceiveMaximum, 1), Num(ReceiveMaximum, 1)}}, V5, FromServer, "2.2.2.2"},
		"property misplaced":     {&Connack{Properties: Properties{Num(TopicAlias, 1)}}, V5, FromServer, "2.2.2.2"},
		"property unknown":       {&Connack{Properties: Properties{{ID: 0x7E, Text: "x"}}}, V5, FromServer, "2.2.2.2"},
		"property of the server": {&Connect{Properties: Properties{Num(ServerKeepAlive, 1)}}, V5, FromClient, "2.2.2.2"},
		"Receive Maximum 0":      {&Connack{Properties: Properties{Num(ReceiveMaximum, 0)}}, V5, FromServer, "2.2.2.2"},
		"Maximum QoS 2":          {&Connack{Properties: Properties{Num(MaximumQoS, 2)}}, V5, FromServer, "2.2.2.2"},
		"alias 0":                {&Publish{Topic: "t", Properties: Properties{Num(TopicAlias, 0)}}, V5, FromServer, "2.2.2.2"},
		"method missing":         {&Auth{Code: 0x18, Properties: Properties{Text(AuthData, "x")}}, V5, FromServer, "3.1.2.11.10"},
		"QoS 3":                  {&Publish{Topic: "t", QoS: 3, ID: 1}, V5, FromServer, "[MQTT-3.3.1-4]"},
		"DUP with QoS 0":         {&Publish{Topic: "t", Dup: true}, V5, FromServer, "[MQTT-3.3.1-2]"},
		"id 0":                   {&Publish{Topic: "t", QoS: 1}, V5, FromServer, "[MQTT-2.2.1-3]"},
		"no topic":               {&Publish{}, V5, FromServer, "[MQTT-4.7.3-1]"},
		"no topic 3.1.1":         {&Publish{}, V311, FromServer, "[MQTT-4.7.3-1]"},
		"wildcard topic":         {&Publish{Topic: "a/+"}, V5, FromServer, "[MQTT-3.3.2-2]"},
		"not UTF-8":              {&Publish{Topic: "\xff"}, V5, FromServer, "[MQTT-1.5.4-1]"},
		"surrogate":              {&Publish{Topic: "\xed\xa0\x80"}, V5, FromServer, "[MQTT-1.5.4-1]"},
		"U+0000":                 {&Publish{Topic: "a\x00"}, V5, FromServer, "[MQTT-1.5.4-2]"},
		"user property":          {&Publish{Topic: "a", Properties: Properties{User("k", "\xff")}}, V5, FromServer, "[MQTT-1.5.4-1]"},
		"wildcard response":      {&Publish{Topic: "a", Properties: Properties{Text(ResponseTopic, "a/#")}}, V5, FromServer, "[MQTT-3.3.2-14]"},
		"client's identifier":    {&Publish{Topic: "a", Properties: Properties{Num(SubscriptionID, 1)}}, V5, FromClient, "[MQTT-3.3.4-6]"},
		"PUBACK code":            {&Ack{Kind: PUBACK, ID: 1, Code: 0x92}, V5, FromServer, "[MQTT-3.4.2-1]"},
		"PUBREC code":            {&Ack{Kind: PUBREC, ID: 1, Code: 0x92}, V5, FromServer, "[MQTT-3.5.2-1]"},
		"PUBREL code":            {&Ack{Kind: PUBREL, ID: 1, Code: 0x80}, V5, FromServer, "[MQTT-3.6.2-1]"},
		"PUBCOMP code":           {&Ack{Kind: PUBCOMP, ID: 1, Code: 0x80}, V5, FromServer, "[MQTT-3.7.2-1]"},
		"PUBACK body 3.1.1":      {&Ack{Wire: Wire{Extra: []byte{0}}, Kind: PUBACK, ID: 1}, V311, FromServer, "2.1.4"},
		"SUBACK without codes":   {&Suback{ID: 1}, V5, FromServer, "[MQTT-3.8.4-6]"},
		"SUBACK code":            {&Suback{ID: 1, Codes: []byte{3}}, V5, FromServer, "[MQTT-3.9.3-2]"},
		"SUBACK code 3.1.1":      {&Suback{ID: 1, Codes: []byte{0x87}}, V311, FromServer, "[MQTT-3.9.3-2]"},
		"UNSUBACK code":          {&Unsuback{ID: 1, Codes: []byte{0x10}}, V5, FromServer, "[MQTT-3.11.3-2]"},
		"UNSUBACK without codes": {&Unsuback{ID: 1}, V5, FromServer, "[MQTT-3.11.3-1]"},
		"DISCONNECT 3.1.1":       {&Disconnect{}, V311, FromServer, "3.14"},
		"DISCONNECT code":        {&Disconnect{Code: 4}, V5, FromServer, "[MQTT-3.14.2-1]"},
		"DISCONNECT code client": {&Disconnect{Code: 0x8E}, V5, FromClient, "[MQTT-3.14.2-1]"},
		"expiry from the server": {&Disconnect{Properties: Properties{Num(SessionExpiry, 1)}}, V5, FromServer, "[MQTT-3.14.2-2]"},
		"reference from client":  {&Disconnect{Properties: Properties{Text(ServerReference, "x")}}, V5, FromClient, "2.2.2.2"},
		"AUTH code":              {&Auth{Code: 0x19}, V5, FromServer, "[MQTT-3.15.2-1]"},
		"reserved connect flag":  {&Connect{Flags: new(byte(3))}, V5, FromClient, "[MQTT-3.1.2-3]"},
		"will QoS without will":  {&Connect{Flags: new(byte(8))}, V5, FromClient, "[MQTT-3.1.2-11]"},
		"will retain alone":      {&Connect{Flags: new(byte(0x20))}, V5, FromClient, "[MQTT-3.1.2-13]"},
		"will QoS 3":             {&Connect{Will: &Will{Topic: "w", QoS: 3}}, V5, FromClient, "[MQTT-3.1.2-12]"},
		"password alone":         {&Connect{Password: []byte("x")}, V311, FromClient, "[MQTT-3.1.2-22]"},
		"protocol name":          {&Connect{ProtocolName: "MQTX"}, V5, FromClient, "[MQTT-3.1.2-1]"},
		"options":                {&Subscribe{ID: 1, Filters: []Filter{{"a", 0x40}}}, V5, FromClient, "[MQTT-3.8.3-5]"},
		"options 3.1.1":          {&Subscribe{ID: 1, Filters: []Filter{{"a", 4}}}, V311, FromClient, "[MQTT-3.8.3-5]"},
		"no local shared":        {&Subscribe{ID: 1, Filters: []Filter{{"$share/g/a", NoLocal}}}, V5, FromClient, "[MQTT-3.8.3-4]"},
		"no filter":              {&Subscribe{ID: 1}, V5, FromClient, "[MQTT-3.8.3-2]"},
		"nothing to unsubscribe": {&Unsubscribe{ID: 1}, V5, FromClient, "[MQTT-3.10.3-2]"},
	} {
		_, err := Decode(Encode(tc.p, tc.version), tc.version, tc.sender)
		v, ok := errors.AsType[*Violation](err)
		if !ok || !strings.HasPrefix(v.Clause, tc.clause) {
			t.Errorf("%s: %s: error %v, want %s", name, Describe(tc.p), err, tc.clause)
		}
	}
}

// Each row is a conversation whose last packet a server must not send.
func TestJudge(t *testing.T) {
	clean := &Connect{CleanStart: true, ClientID: "a"}
	with := func(p ...Property) *Connect { return &Connect{CleanStart: true, ClientID: "a", Properties: p} }
	ok := &Connack{}
	pub := func(id uint16, qos byte, p ...Property) *Publish {
		return &Publish{Topic: "t", QoS: qos, ID: id, Properties: p}
	}
	sub := &Subscribe{ID: 1, Filters: []Filter{{"t", 1}}}
	for name, tc := range map[string]struct {
		packets []Packet
		clause  string
	}{
		"first a SUBACK":       {[]Packet{clean, &Suback{ID: 1}}, "[MQTT-3.2.0-1]"},
		"DISCONNECT first":     {[]Packet{clean, &Disconnect{}}, "[MQTT-3.14.0-1]"},
		"two CONNACKs":         {[]Packet{clean, ok, ok}, "[MQTT-3.2.0-2]"},
		"after the refusal":    {[]Packet{clean, &Connack{Code: 0x87}, &Pingresp{}}, "[MQTT-3.14.4-1]"},
		"after DISCONNECT":     {[]Packet{clean, ok, &Disconnect{}, &Pingresp{}}, "[MQTT-3.14.4-1]"},
		"clean and present":    {[]Packet{clean, &Connack{SessionPresent: true}}, "[MQTT-3.2.2-2]"},
		"id not assigned":      {[]Packet{&Connect{CleanStart: true}, ok}, "[MQTT-3.2.2-16]"},
		"id assigned":          {[]Packet{clean, &Connack{Properties: Properties{Text(AssignedClientID, "x")}}}, "[MQTT-3.2.2-16]"},
		"too large":            {[]Packet{with(Num(MaximumPacketSize, 10)), ok, pub(0, 0, Text(ContentType, "long"))}, "[MQTT-3.1.2-24]"},
		"alias too high":       {[]Packet{with(Num(TopicAliasMaximum, 1)), ok, pub(0, 0, Num(TopicAlias, 2))}, "[MQTT-3.1.2-26]"},
		"alias unasked":        {[]Packet{clean, ok, pub(0, 0, Num(TopicAlias, 1))}, "[MQTT-3.1.2-26]"},
		"alias unknown":        {[]Packet{with(Num(TopicAliasMaximum, 1)), ok, &Publish{Properties: Properties{Num(TopicAlias, 1)}}}, "3.3.2.3.4"},
		"id in use":            {[]Packet{clean, ok, pub(1, 1), pub(1, 1)}, "[MQTT-2.2.1-4]"},
		"receive maximum":      {[]Packet{with(Num(ReceiveMaximum, 1)), ok, pub(1, 1), pub(2, 2)}, "[MQTT-3.3.4-9]"},
		"DUP on a new session": {[]Packet{clean, ok, &Publish{Topic: "t", QoS: 1, ID: 1, Dup: true}}, "[MQTT-3.3.1-3]"},
		"PUBACK undue":         {[]Packet{clean, ok, &Ack{Kind: PUBACK, ID: 1}}, "[MQTT-2.2.1-5]"},
		"PUBREL undue":         {[]Packet{clean, ok, pub(1, 2), &Ack{Kind: PUBREL, ID: 1}}, "[MQTT-4.3.3-4]"},
		"SUBACK undue":         {[]Packet{clean, ok, &Suback{ID: 1, Codes: []byte{0}}}, "[MQTT-3.8.4-2]"},
		"SUBACK count":         {[]Packet{clean, ok, sub, &Suback{ID: 1, Codes: []byte{0, 0}}}, "[MQTT-3.8.4-6]"},
		"granted too much":     {[]Packet{clean, ok, sub, &Suback{ID: 1, Codes: []byte{2}}}, "[MQTT-3.8.4-7]"},
		"UNSUBACK undue":       {[]Packet{clean, ok, &Unsuback{ID: 1}}, "[MQTT-3.10.4-5]"},
		"PINGRESP undue":       {[]Packet{clean, ok, &Pingresp{}}, "3.13"},
		"explains itself":      {[]Packet{with(Num(RequestProblemInfo, 0)), ok, sub, &Suback{ID: 1, Codes: []byte{0}, Properties: Properties{Text(ReasonString, "x")}}}, "[MQTT-3.1.2-29]"},
		"AUTH":                 {[]Packet{clean, ok, &Auth{Code: 0x18}}, "[MQTT-4.12.0-6]"},
		"method":               {[]Packet{clean, &Connack{Properties: Properties{Text(AuthMethod, "x")}}}, "[MQTT-4.12.0-6]"},
		"response information": {[]Packet{clean, &Connack{Properties: Properties{Text(ResponseInfo, "x")}}}, "[MQTT-3.1.2-28]"},
	} {
		var j Judge
		for i, p := range tc.packets {
			if sentBy(p.Type(), FromClient) && p.Type() != PUBLISH && p.Type() != DISCONNECT && p.Type() < PUBACK || p.Type() == SUBSCRIBE {
				j.Sent(p, V5)
				continue
			}
			err := j.Received(p, len(Encode(p, V5)))
			if i < len(tc.packets)-1 {
				if err != nil {
					t.Errorf("%s: packet %d: %v", name, i, err)
				}
				continue
			}
			if v, is := errors.AsType[*Violation](err); !is || v.Clause != tc.clause {
				t.Errorf("%s: error %v, want %s", name, err, tc.clause)
			}
		}
	}
}

// A conversation as it should be has nothing to object to.
func TestJudgeAgrees(t *testing.T) {
	var j Judge
	j.Sent(&Connect{CleanStart: true, ClientID: "a", Properties: Properties{Num(ReceiveMaximum, 1), Num(TopicAliasMaximum, 1)}}, V5)
	receive := func(p Packet) {
		t.Helper()
		if err := j.Received(p, 0); err != nil {
			t.Error(err)
		}
	}
	receive(&Connack{})
	j.Sent(&Subscribe{ID: 1, Filters: []Filter{{"t", 2}, {"u", 0}}}, V5)
	receive(&Suback{ID: 1, Codes: []byte{2, 0x8F}})
	for range 2 {
		alias := Properties{Num(TopicAlias, 1)}
		receive(&Publish{Topic: "t", QoS: 2, ID: 1, Properties: alias})
		j.Sent(&Ack{Kind: PUBREC, ID: 1}, V5)
		receive(&Ack{Kind: PUBREL, ID: 1})
		j.Sent(&Ack{Kind: PUBCOMP, ID: 1}, V5)
		p := &Publish{QoS: 1, ID: 1, Properties: alias}
		receive(p)
		if j.Topic(p) != "t" {
			t.Errorf("alias 1 is %q", j.Topic(p))
		}
		j.Sent(&Ack{Kind: PUBACK, ID: 1}, V5)
		j.Sent(&Publish{Topic: "t", QoS: 2, ID: 7}, V5)
		receive(&Ack{Kind: PUBREC, ID: 7})
		j.Sent(&Publish{Topic: "t", QoS: 2, ID: 7, Dup: true}, V5)
		receive(&Ack{Kind: PUBREC, ID: 7})
		j.Sent(&Ack{Kind: PUBREL, ID: 7}, V5)
		receive(&Ack{Kind: PUBCOMP, ID: 7})
		j.Sent(&Pingreq{}, V5)
		receive(&Pingresp{})
	}
	receive(&Disconnect{Code: 0x8B})
}
