package main

import (
	"crypto/tls"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/pki"
)

// tlsFlags say how the sensors speak TLS.
type tlsFlags struct{ files pki.ClientFiles }

func (f *tlsFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.files.CA, "ca-file", "", "`file` of who may sign the broker's certificate; without: the system's authorities")
	fl.StringVar(&f.files.Cert, "cert-file", "", "`file` of the sensors' own certificate")
	fl.StringVar(&f.files.Key, "key-file", "", "`file` of its key")
	fl.StringVar(&f.files.ServerName, "server-name", "", "`name` in the broker's certificate; without: the host of --broker")
}

// config is nil where no flag was given.
func (f *tlsFlags) config() (*tls.Config, error) {
	if f.files == (pki.ClientFiles{}) {
		return nil, nil
	}
	c, err := pki.OpenClientTLS(f.files)
	if err != nil {
		return nil, usage(err)
	}
	return c.Config()
}
