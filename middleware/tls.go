package middleware

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLSConfig is what the secure listeners show and demand.
type TLSConfig struct {
	// Certificates are chosen from by the name a client asks for (SNI); the
	// first serves clients that ask for none of them.
	Certificates []CertificateFiles
	// ClientCAFile names a PEM bundle; set, every client must show a
	// certificate that it signed.
	ClientCAFile string
	// GetCertificate, if not nil, takes the place of Certificates: the seam
	// for certificates that change while the gateway runs.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// CertificateFiles names a certificate chain and its key, both PEM.
type CertificateFiles struct{ CertFile, KeyFile string }

// load reads the files. It returns nil where nothing is configured.
func (c TLSConfig) load() (*tls.Config, error) {
	if len(c.Certificates) == 0 && c.GetCertificate == nil {
		if c.ClientCAFile != "" {
			return nil, errors.New("tls.client_ca_file: needs at least one entry in tls.certificates")
		}
		return nil, nil
	}
	out := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: c.GetCertificate,
	}
	var errs []error
	for i, f := range c.Certificates {
		cert, err := f.load(fmt.Sprintf("tls.certificates[%d]", i))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out.Certificates = append(out.Certificates, cert)
	}
	if c.ClientCAFile != "" {
		pool, err := loadPool(c.ClientCAFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("tls.client_ca_file: %w", err))
		}
		out.ClientAuth, out.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return out, errors.Join(errs...)
}

func (f CertificateFiles) load(key string) (tls.Certificate, error) {
	if f.CertFile == "" || f.KeyFile == "" {
		return tls.Certificate{}, fmt.Errorf("%s: cert_file and key_file must both be given", key)
	}
	cert, err := os.ReadFile(f.CertFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.cert_file: %w", key, err)
	}
	private, err := os.ReadFile(f.KeyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.key_file: %w", key, err)
	}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %s and %s are no PEM pair: %w", key, f.CertFile, f.KeyFile, err)
	}
	return pair, nil
}

func loadPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}
