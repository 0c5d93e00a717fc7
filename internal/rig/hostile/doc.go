// Package hostile holds MQTT clients that break the rules on purpose, each a
// named behaviour: half packets, floods, lies about lengths and identifiers,
// connections that are never used for anything but to be there.
//
// A behaviour promises to end soon after its context does, to close every
// connection it opened, and to report what it tried and what the server did. It
// judges nothing, keeps its own memory small, and shares no code with what it
// attacks: a fault in an encoder of the server would hide itself.
package hostile
