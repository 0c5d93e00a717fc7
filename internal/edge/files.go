package edge

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/pki"
)

const (
	// watchEvery is how soon a change of users, ACL or revocation lists reaches
	// sensors that are connected.
	watchEvery = time.Second
	// expiryEvery is how often the ends of certificates are looked at.
	expiryEvery = time.Minute
)

// openFiles reads who may come in and do what.
func (e *Edge) openFiles() (err error) {
	s := &e.config.Sensors
	if s.UsersFile != "" {
		if e.users, err = pki.OpenUsers(s.UsersFile, 0); err != nil {
			return cli.Fail(cli.Usage, err, "")
		}
	}
	if s.ACLFile != "" {
		if e.acl, err = acl.Open(s.ACLFile); err != nil {
			return cli.Fail(cli.Usage, err, "`packetboat-edge config check` says all that is wrong")
		}
	}
	if s.TLS.CertFile != "" {
		files := s.TLS.files()
		files.Logger = e.log.With("part", "sensors")
		if e.tls, err = pki.OpenServerTLS(files); err != nil {
			return cli.Fail(cli.Usage, fmt.Errorf("read sensors.tls: %w", err), "")
		}
	}
	return nil
}

// watchFiles carries changes of files to sensors that are connected, and warns
// of certificates that end, until ctx ends.
func (e *Edge) watchFiles(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if e.acl != nil {
		wg.Go(func() { e.acl.Run(ctx, watchEvery, e.log.With("part", "sensors")) })
	}
	look := expiryWatch{edge: e, told: map[string]string{}}
	look.at(time.Now())
	last := time.Now()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		e.sensors.Recheck()
		if time.Since(last) >= expiryEvery {
			look.at(time.Now())
			last = time.Now()
		}
	}
}

// expiryWatch says of each certificate once a day that it ends.
type expiryWatch struct {
	edge *Edge
	told map[string]string // what was said, by key
}

func (w *expiryWatch) at(now time.Time) {
	list := certificates(w.edge.tls, w.edge.hubTLS)
	w.edge.expiring.Store(&list)
	for _, x := range list {
		text := x.problem(now)
		stamp := text
		if text != "" {
			stamp = now.Format(time.DateOnly) + x.NotAfter.String()
		}
		if stamp != w.told[x.Key] && text != "" {
			w.edge.log.Warn("certificate ends", "key", x.Key, "not_after", x.NotAfter, "warning", text)
		}
		w.told[x.Key] = stamp
	}
}
