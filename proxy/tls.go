package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/sluice-gateway/sluice/routing"
)

// tlsConfig compiles how instances are spoken to over TLS. Verification is on
// unless the spec says otherwise; without server_name the instance's own
// address is what its certificate must name.
func tlsConfig(spec routing.TLSSpec) (*tls.Config, error) {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         spec.ServerName,
		InsecureSkipVerify: spec.InsecureSkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(1024),
	}
	if spec.CAFile != "" {
		pem, err := os.ReadFile(spec.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %s holds no PEM certificate", spec.CAFile)
		}
	}
	if (spec.CertFile == "") != (spec.KeyFile == "") {
		return nil, fmt.Errorf("tls.cert_file and tls.key_file go together")
	}
	if spec.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(spec.CertFile, spec.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("tls.cert_file, tls.key_file: %w", err)
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		// Read at each handshake: certificates are renewed on disk while the
		// gateway runs.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return conf, nil
}
