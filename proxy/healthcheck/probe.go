package healthcheck

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// probe asks an instance once. The error says what is wrong with it.
type probe func(context.Context) error

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 4096

// newProbe makes the probe of a target whose Spec has its defaults.
func newProbe(t Target) (probe, error) {
	switch t.Spec.Type {
	case HTTP:
		return httpProbe(t)
	case TCP:
		return tcpProbe(t), nil
	case GRPC:
		return grpcProbe(t), nil
	}
	return nil, fmt.Errorf("health_check.type is %q; http, tcp and grpc are known", t.Spec.Type)
}

func tcpProbe(t Target) probe {
	return func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", t.Endpoint.Address())
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// httpProbe sends GET. It goes through the transport and not through a
// client, because a client would follow redirects: an instance could point
// the gateway at any address inside its network.
func httpProbe(t Target) (probe, error) {
	path := t.Spec.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	// As a request URI it holds no host, whatever it looks like.
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, fmt.Errorf("health_check.path: %w", err)
	}
	u.Scheme, u.Host = scheme(t.Protocol), t.Endpoint.Address()
	transport := newTransport(t)
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return err
		}
		resp, err := roundTrip(transport, t, req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode < 200 || resp.StatusCode > 399 {
			return fmt.Errorf("GET %s: status %d", path, resp.StatusCode)
		}
		return nil
	}, nil
}

// grpcProbe calls grpc.health.v1.Health/Check: one message each way, so that
// plain HTTP/2 says it all.
func grpcProbe(t Target) probe {
	u := url.URL{Scheme: scheme(t.Protocol), Host: t.Endpoint.Address(), Path: "/grpc.health.v1.Health/Check"}
	message := grpcMessage(strings.TrimPrefix(t.Spec.Path, "/"))
	if t.Protocol != protocolHTTPS && t.Protocol != protocolGRPCS {
		t.Protocol = protocolGRPC
	} else {
		t.Protocol = protocolGRPCS
	}
	transport := newTransport(t)
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(message))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		resp, err := roundTrip(transport, t, req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("grpc health: status %d", resp.StatusCode)
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return fmt.Errorf("grpc health: %w", err)
		}
		return grpcVerdict(resp, body)
	}
}

// grpcMessage is HealthCheckRequest{service} in its frame: no compression,
// length, then field 1 as a string.
func grpcMessage(service string) []byte {
	var message []byte
	if service != "" {
		message = binary.AppendUvarint([]byte{0x0a}, uint64(len(service)))
		message = append(message, service...)
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(frame, message...)
}

// grpcVerdict reads a HealthCheckResponse, whose one field is the status.
func grpcVerdict(resp *http.Response, body []byte) error {
	status := resp.Trailer.Get("Grpc-Status")
	if status == "" { // an answer without a message has it in the head
		status = resp.Header.Get("Grpc-Status")
	}
	if status != "0" {
		return fmt.Errorf("grpc health: grpc-status %q", status)
	}
	names := []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	serving := 0
	if len(body) >= 7 && body[5] == 0x08 && int(body[6]) < len(names) {
		serving = int(body[6])
	}
	if serving != 1 {
		return fmt.Errorf("grpc health: %s", names[serving])
	}
	return nil
}

// newTransport makes a transport that keeps no connection: to connect is part
// of being well.
func newTransport(t Target) *http.Transport {
	var protocols http.Protocols
	switch t.Protocol {
	case protocolH2C, protocolGRPC:
		protocols.SetUnencryptedHTTP2(true)
	case protocolGRPCS:
		protocols.SetHTTP2(true)
	default:
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	}
	var config *tls.Config
	if t.TLS != nil {
		config = t.TLS.Clone()
	}
	return &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		TLSClientConfig:        config,
		Protocols:              &protocols,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

func roundTrip(transport *http.Transport, t Target, req *http.Request) (*http.Response, error) {
	req.Host = t.Host
	req.Header.Set("User-Agent", "sluice-health-check")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		// Which port this end had says nothing and differs every time.
		var op *net.OpError
		if errors.As(err, &op) {
			op.Source = nil
		}
		return nil, err
	}
	return resp, nil
}

// scheme is the URL scheme of a protocol.
func scheme(protocol string) string {
	if protocol == protocolHTTPS || protocol == protocolGRPCS {
		return "https"
	}
	return "http"
}
