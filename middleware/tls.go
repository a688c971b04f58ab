package middleware

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// TLSConfig is what the secure listeners show and demand.
type TLSConfig struct {
	// Certificates are chosen from by the name a client asks for (SNI); the
	// first serves clients that ask for none of them.
	Certificates []CertificateFiles
	// ClientCAFile names a PEM bundle; set, a certificate that a client shows
	// must be signed by it.
	ClientCAFile string
	// ClientAuth says whether a client has to show one: ClientAuthRequire,
	// which "" is too, or ClientAuthOptional. It needs ClientCAFile.
	ClientAuth string
}

// What TLSConfig.ClientAuth may be.
const (
	ClientAuthRequire  = "require"
	ClientAuthOptional = "optional"
)

// CertificateFiles names a certificate chain and its key, both PEM.
type CertificateFiles struct{ CertFile, KeyFile string }

func (c TLSConfig) validate() error {
	var errs []error
	if c.ClientCAFile != "" && len(c.Certificates) == 0 {
		errs = append(errs, errors.New("tls.client_ca_file: needs at least one entry in tls.certificates"))
	}
	switch c.ClientAuth {
	case "", ClientAuthRequire:
	case ClientAuthOptional:
		if c.ClientCAFile == "" {
			errs = append(errs, errors.New("tls.client_auth: is optional, which needs tls.client_ca_file"))
		}
	default:
		errs = append(errs, fmt.Errorf("tls.client_auth: is %q; accepted are require, optional", c.ClientAuth))
	}
	for i, f := range c.Certificates {
		if f.CertFile == "" || f.KeyFile == "" {
			errs = append(errs, fmt.Errorf("%s: cert_file and key_file must both be given", certificateKey(i)))
		}
	}
	return errors.Join(errs...)
}

// certificateKey is where certificate i stands in the configuration.
func certificateKey(i int) string { return fmt.Sprintf("tls.certificates[%d]", i) }

// serverTLS is the configuration of handshakes by what the files say.
func (c TLSConfig) serverTLS(pairs []tls.Certificate, clientCAs *x509.CertPool) *tls.Config {
	out := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
		Certificates: pairs,
		// Of TLS 1.2 what has forward secrecy and authenticates as it encrypts
		// (RFC 9325 section 4.2); those of TLS 1.3 are all like that.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
	if c.ClientCAFile != "" {
		out.ClientCAs, out.ClientAuth = clientCAs, tls.RequireAndVerifyClientCert
		if c.ClientAuth == ClientAuthOptional {
			out.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	return out
}
