package middleware

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// keyring holds the newest good version of the TLS files. A handshake takes
// what is in force when it begins; connections that stand are not touched.
// Safe for concurrent use.
type keyring struct {
	cfg     TLSConfig
	log     *slog.Logger
	entries []*tlsEntry // only Run changes them
	current atomic.Pointer[tls.Config]
	expiry  *prometheus.Desc
}

// tlsEntry is one entry of the configuration: a certificate with its key, or
// a bundle of authorities.
type tlsEntry struct {
	key   string
	files []tlsFile
	// contents is what the files held when pair or pool was made of them.
	// Names and times say too little: a volume may be mounted over a file.
	contents [][]byte
	pair     tls.Certificate
	pool     *x509.CertPool
	said     string // the last fault, so that each is said once
}

type tlsFile struct{ key, path string }

// newKeyring reads the files for the first time: all of them have to be good.
// It returns nil where nothing is configured.
func newKeyring(cfg TLSConfig, log *slog.Logger) (*keyring, error) {
	if err := cfg.validate(); err != nil || len(cfg.Certificates) == 0 {
		return nil, err
	}
	k := &keyring{cfg: cfg, log: log, expiry: prometheus.NewDesc("sluice_certificate_expiry_seconds",
		"Seconds until a certificate of the traffic listeners ends, by its place in the configuration; below 0 it has ended.",
		[]string{"name"}, nil)}
	for i, f := range cfg.Certificates {
		key := certificateKey(i)
		k.entries = append(k.entries, &tlsEntry{key: key, files: []tlsFile{{key + ".cert_file", f.CertFile}, {key + ".key_file", f.KeyFile}}})
	}
	if file := cfg.ClientCAFile; file != "" {
		const key = "tls.client_ca_file"
		k.entries = append(k.entries, &tlsEntry{key: key, files: []tlsFile{{key, file}}})
	}
	var errs []error
	for _, e := range k.entries {
		_, err := e.read()
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	k.publish()
	return k, nil
}

// listenerConfig is a configuration that takes each handshake's from what is
// in force. The keys of session tickets are its own and outlive a change;
// crypto/tls verifies the client of a resumed session once more.
func (k *keyring) listenerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return k.current.Load(), nil },
	}
}

// Run follows the files until ctx ends. What cannot be used is logged with its
// key and changes nothing; entries do not wait for each other.
func (k *keyring) Run(ctx context.Context) {
	ticker := time.NewTicker(fileEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.reload()
		}
	}
}

func (k *keyring) reload() {
	var fresh []*tlsEntry
	for _, e := range k.entries {
		changed, err := e.read()
		if err != nil {
			if e.said != err.Error() {
				k.log.Error("a TLS file cannot be used; its last good version serves on", "key", e.key, "error", err)
			}
			e.said = err.Error()
			continue
		}
		e.said = ""
		if changed {
			fresh = append(fresh, e)
		}
	}
	if len(fresh) == 0 {
		return
	}
	k.publish()
	for _, e := range fresh {
		if e.pool != nil {
			k.log.Info("a TLS file has changed", "key", e.key)
		} else {
			k.log.Info("a TLS file has changed", "key", e.key, "not_after", e.pair.Leaf.NotAfter)
		}
	}
}

// publish puts what the entries hold into force.
func (k *keyring) publish() {
	var pairs []tls.Certificate
	var clientCAs *x509.CertPool
	for _, e := range k.entries {
		if e.pool != nil {
			clientCAs = e.pool
		} else {
			pairs = append(pairs, e.pair)
		}
	}
	k.current.Store(k.cfg.serverTLS(pairs, clientCAs))
}

// read takes over what the files say and whether that is new. After an error
// the entry is what it was. No error quotes a file.
func (e *tlsEntry) read() (changed bool, err error) {
	contents := make([][]byte, len(e.files))
	for i, f := range e.files {
		if contents[i], err = readFile(f.path); err != nil {
			return false, fmt.Errorf("%s: %w", f.key, err)
		}
	}
	if slices.EqualFunc(contents, e.contents, bytes.Equal) {
		return false, nil
	}
	if len(e.files) == 2 {
		pair, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil {
			return false, fmt.Errorf("%s: %s and %s are no PEM pair: %w", e.key, e.files[0].path, e.files[1].path, err)
		}
		e.pair = pair
	} else {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(contents[0]) {
			return false, fmt.Errorf("%s: %s holds no PEM certificate", e.key, e.files[0].path)
		}
		e.pool = pool
	}
	e.contents = contents
	return true, nil
}

// Describe implements prometheus.Collector.
func (k *keyring) Describe(ch chan<- *prometheus.Desc) { ch <- k.expiry }

// Collect implements prometheus.Collector.
func (k *keyring) Collect(ch chan<- prometheus.Metric) {
	for i, pair := range k.current.Load().Certificates {
		ch <- prometheus.MustNewConstMetric(k.expiry, prometheus.GaugeValue, time.Until(pair.Leaf.NotAfter).Seconds(), certificateKey(i))
	}
}
