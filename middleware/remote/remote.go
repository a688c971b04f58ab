// Package remote calls other services that decide about requests: issuers of
// tokens and their key sets, introspection endpoints, services that are asked
// whether a request may pass. Every call is bounded in time and in what is
// read; redirects are not followed, since whoever answers could otherwise
// send the gateway anywhere; certificates are verified.
package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// MaxBody bounds what is read of an answer, in bytes.
const MaxBody = 1 << 20

// DefaultTimeout bounds a call where nothing else is said.
const DefaultTimeout = 5 * time.Second

// ErrTooLarge says that an answer is larger than MaxBody.
var ErrTooLarge = fmt.Errorf("the answer is larger than %d bytes", MaxBody)

// NewClient makes a client whose calls end after timeout. caFile, where it is
// not "", replaces the system's roots.
func NewClient(timeout time.Duration, caFile string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", caFile)
		}
	}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: timeout}).DialContext,
			TLSClientConfig: config, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// CheckURL says what is wrong with an address to call, or nil: http or https,
// a host, no user, no fragment.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("is not an http or https address")
	case u.User != nil:
		return errors.New("holds user information, which would end up in logs")
	case u.Fragment != "":
		return errors.New("holds a fragment")
	}
	return nil
}

// Do sends one request. Errors name no more of its address than the host,
// since a query may hold a secret.
func Do(client *http.Client, req *http.Request) (*http.Response, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", req.URL.Host, cause(err))
	}
	return resp, nil
}

// Get fetches address and returns the body of a 200 answer. The errors name
// no more of the address than its host.
func Get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := Do(client, req)
	if err != nil {
		return nil, err
	}
	body, err := ReadBody(resp)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", req.URL.Host, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: it answered %d", req.URL.Host, resp.StatusCode)
	}
	return body, nil
}

// ReadBody reads an answer to its end, at most MaxBody of it, and closes it.
func ReadBody(resp *http.Response) ([]byte, error) {
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", cause(err))
	}
	if len(body) > MaxBody {
		return nil, ErrTooLarge
	}
	return body, nil
}

// cause strips the address that net/http puts before its errors: its query
// may hold a secret.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return errors.New(strings.ToLower(u.Op) + ": " + u.Err.Error())
	}
	return err
}
