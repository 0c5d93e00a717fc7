// Package hub puts a hub together: the configuration, the embedded commit log,
// ingest, the gate, the MQTT front with the devices' secrets and certificates,
// the HTTP API, metrics and the service manager's notifications; and the
// commands around a hub.
//
// It promises that what holds data is opened first and closed last, that what
// accepts data is opened last and closed first, that a hub which stops has
// committed or refused every batch it took, that a hub reachable from elsewhere
// asks every device for its secret or certificate, that a device which may not
// connect any more is disconnected within seconds, and that nothing of one
// device shows in what another one is told. What happens to a batch is decided
// in pkg/ingest, what is durable in pkg/commitlog.
package hub
