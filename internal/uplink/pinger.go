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
	lastOut  atomic.Int64 // ns since 1970
}

// Run implements paho.Pinger; keepAlive is in seconds.
func (p *pinger) Run(ctx context.Context, conn net.Conn, keepAlive uint16) error {
	if keepAlive == 0 {
		return nil // the hub asked for none
	}
	interval := time.Duration(keepAlive) * time.Second
	tick := time.NewTicker(max(interval/8, 50*time.Millisecond))
	defer tick.Stop()
	var pinged time.Time // the ping that waits for an answer
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return nil
		case now = <-tick.C:
		}
		heard, sent := time.Unix(0, p.conn.lastIn.Load()), time.Unix(0, p.lastOut.Load())
		if !heard.Before(pinged) {
			pinged = time.Time{}
		}
		if !pinged.IsZero() {
			if p.inFlight.Load() == 0 && now.Sub(pinged) > interval {
				return p.conn.fail(errSilent)
			}
			continue
		}
		if now.Sub(sent) < interval/2 && now.Sub(heard) < interval {
			continue
		}
		pinged = time.Now() // before the answer can be there
		if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(conn); err != nil {
			return err
		}
		p.PacketSent()
	}
}

// PacketSent implements paho.Pinger.
func (p *pinger) PacketSent() { p.lastOut.Store(time.Now().UnixNano()) }

// PacketReceived implements paho.Pinger; the connection knows already.
func (p *pinger) PacketReceived() {}

// PingResp implements paho.Pinger; the connection knows already.
func (p *pinger) PingResp() {}

// SetDebug implements paho.Pinger.
func (p *pinger) SetDebug(log.Logger) {}
