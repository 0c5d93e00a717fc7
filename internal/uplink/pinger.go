package uplink

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
)

// errSilent says that a hub did not answer a ping.
var errSilent = errors.New("hub does not answer pings")

// pinger keeps an idle connection alive and notices a dead one. While batches
// are in flight a late answer means a slow link, which is the sender's to judge.
type pinger struct {
	conn     *packetConn
	inFlight *atomic.Int64
	lastOut  atomic.Int64 // a time.Duration, as conn.lastIn
}

// Run implements paho.Pinger; keepAlive is in seconds.
func (p *pinger) Run(ctx context.Context, conn net.Conn, keepAlive uint16) error {
	if keepAlive == 0 {
		return nil // the hub asked for none
	}
	interval := time.Duration(keepAlive) * time.Second
	tick := time.NewTicker(max(interval/8, 50*time.Millisecond))
	defer tick.Stop()
	waiting, pinged := false, time.Duration(0) // a ping waits for its answer, since when
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, heard, sent := p.conn.age(), time.Duration(p.conn.lastIn.Load()), time.Duration(p.lastOut.Load())
		if heard >= pinged {
			waiting = false
		}
		if waiting {
			if p.inFlight.Load() == 0 && now-pinged > interval {
				return p.conn.fail(errSilent)
			}
			continue
		}
		if now-sent < interval/2 && now-heard < interval {
			continue
		}
		waiting, pinged = true, p.conn.age() // before the answer can be there
		if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(conn); err != nil {
			return err
		}
		p.PacketSent()
	}
}

// PacketSent implements paho.Pinger.
func (p *pinger) PacketSent() { p.lastOut.Store(int64(p.conn.age())) }

// PacketReceived implements paho.Pinger; the connection knows already.
func (p *pinger) PacketReceived() {}

// PingResp implements paho.Pinger; the connection knows already.
func (p *pinger) PingResp() {}

// SetDebug implements paho.Pinger.
func (p *pinger) SetDebug(log.Logger) {}
