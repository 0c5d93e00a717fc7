// Package linkbench says what a message costs on the link between edge and hub:
// recordings and made-up devices go through the link's own encoder and decoder,
// beside plain MQTT, and the bytes are counted.
//
// It promises that every figure contains MQTT framing, envelope and check, that
// every batch was decoded and compared byte for byte, that a difference is an
// error, and the same byte counts on every machine. Times and memory are of the
// machine at hand and judge nothing. No socket is opened: a batch is answered
// before the next is encoded, and what TLS and TCP/IP add is computed.
package linkbench
