package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// identity returns a server's TLS settings, for 127.0.0.1 and example.com,
// and those of a client that trusts it.
func identity(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"http/1.1"}},
		&tls.Config{RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
}

// securePeer is peer with TLS.
func securePeer(t testing.TB, conf *tls.Config, script func(n int, c *tls.Conn, br *bufio.Reader)) (address string) {
	return peer(t, func(n int, raw *net.TCPConn, _ *bufio.Reader) {
		c := tls.Server(raw, conf)
		script(n, c, bufio.NewReader(c))
	})
}

func TestTLSConnectionsAreReusedOnlyWhenThatIsSafe(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version uint16
		answer  string
		leave   bool // the peer closes after its answer
		want    string
	}{
		{"TLS 1.3, whose tickets come after the handshake", tls.VersionTLS13, ok, false, "asked reused wrote answered"},
		{"TLS 1.2", tls.VersionTLS12, ok, false, "asked reused wrote answered"},
		{"bytes behind the body", tls.VersionTLS13, ok + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false, "asked fresh wrote answered"},
		{"the other side has taken leave", tls.VersionTLS13, ok, true, "asked fresh wrote answered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, trusting := identity(t)
			server.MaxVersion = tt.version
			left := make(chan struct{}, 8)
			at := securePeer(t, server, func(_ int, c *tls.Conn, br *bufio.Reader) {
				for request(br) != "" {
					_, _ = io.WriteString(c, tt.answer)
					if tt.leave {
						c.Close()
						left <- struct{}{}
						return
					}
				}
			})
			c := newClient(t, func(c *Config) { c.TLS = trusting })
			for i, want := range []string{"asked fresh wrote answered", tt.want, tt.want} {
				if i > 0 && tt.leave {
					<-left
				}
				if _, body, n, err := get(t, c, at); err != nil || body != "ok" || n.String() != want {
					t.Errorf("exchange %d went %q and brought %q, %v", i, n, body, err)
				}
			}
		})
	}
}

func TestTLSHandshakes(t *testing.T) {
	server, trusting := identity(t)
	at := securePeer(t, server, func(n int, c *tls.Conn, br *bufio.Reader) {
		for request(br) != "" {
			_, _ = io.WriteString(c, ok)
		}
	})
	silent := peer(t, func(_ int, _ *net.TCPConn, br *bufio.Reader) { _, _ = io.Copy(io.Discard, br) })
	var unknown *tls.CertificateVerificationError
	for _, tt := range []struct {
		name   string
		change func(*Config)
		at     string
		ok     func(error) bool
	}{
		{"the address is what the certificate must name", func(*Config) {}, at, func(err error) bool { return err == nil }},
		{"or the name that is set", func(c *Config) { c.TLS.ServerName = "example.com" }, at, func(err error) bool { return err == nil }},
		{"another name is refused", func(c *Config) { c.TLS.ServerName = "other.test" }, at, func(err error) bool { return errors.As(err, &unknown) }},
		{"an unknown authority is refused", func(c *Config) { c.TLS.RootCAs = nil }, at, func(err error) bool { return errors.As(err, &unknown) }},
		{"one that does not go on is ended", func(c *Config) { c.Handshake = 20 * time.Millisecond }, silent,
			func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, func(c *Config) {
				c.TLS = trusting.Clone()
				tt.change(c)
			})
			_, _, n, err := get(t, c, tt.at)
			if open, _ := c.Connections(tt.at); !tt.ok(err) || err != nil && (open != 0 || n.String() != "asked") {
				t.Errorf("went %q over %d connections, %v", n, open, err)
			}
		})
	}
}

// An instance that wants HTTP/2 gets nothing of the request, which can then be
// sent in another way.
func TestAPeerThatChoosesHTTP2IsNotSpokenTo(t *testing.T) {
	server, trusting := identity(t)
	server.NextProtos = []string{"h2"}
	sent := make(chan string, 1)
	at := securePeer(t, server, func(_ int, c *tls.Conn, br *bufio.Reader) {
		b, _ := io.ReadAll(br)
		sent <- string(b)
	})
	c := newClient(t, func(c *Config) { c.TLS = trusting })
	n, req := &note{}, newRequest(t, t.Context(), "POST", at, "hello")
	_, err := c.RoundTrip(req, n, true)
	body, _ := io.ReadAll(req.Body)
	if !errors.Is(err, ErrProtocol) || n.String() != "asked" || string(body) != "hello" || <-sent != "" {
		t.Errorf("went %q, %v, and %q is left", n, err, body)
	}
	if open, _ := c.Connections(at); open != 0 {
		t.Errorf("%d connections are left", open)
	}
}

// records that a peer sends by its own hand, after its TLS library has sent
// its last.
type ownRecords struct {
	aead cipher.AEAD
	iv   []byte
	seq  uint64
}

// newOwnRecords derives the keys from the log of a server whose cipher is
// AES-128 (RFC 8446 section 7.3). sent is how many records it has sent.
func newOwnRecords(t *testing.T, log string, sent uint64) *ownRecords {
	t.Helper()
	var secret []byte
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); f[0] == "SERVER_TRAFFIC_SECRET_0" {
			secret, _ = hex.DecodeString(f[2])
		}
	}
	derive := func(label string, n int) []byte {
		label = "tls13 " + label
		info := append([]byte{0, byte(n), byte(len(label))}, label...)
		b, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
		if err != nil {
			t.Error(err)
		}
		return b
	}
	block, err := aes.NewCipher(derive("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &ownRecords{aead, derive("iv", 12), sent}
}

const handshakeRecord, dataRecord = 22, 23

func (r *ownRecords) seal(kind byte, content []byte) []byte {
	nonce := bytes.Clone(r.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, r.seq) {
		nonce[4+i] ^= b
	}
	r.seq++
	header := []byte{dataRecord, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(header[3:], uint16(len(content)+1+r.aead.Overhead()))
	return r.aead.Seal(header, nonce, append(bytes.Clone(content), kind), header)
}

// ticket is a NewSessionTicket (RFC 8446 section 4.6.1).
func ticket() []byte {
	b := []byte{4, 0, 0, 0, 0, 0, 14, 16, 1, 2, 3, 4, 1, 9, 0, 32}
	b = append(b, make([]byte, 32)...)
	b = append(b, 0, 0)
	b[3] = byte(len(b) - 4)
	return b
}

// What comes on an idle connection is not always for us: TLS has messages of
// its own, and they cost no connection. Data does.
func TestTLSMessagesOnAnIdleConnection(t *testing.T) {
	tests := []struct {
		name   string
		send   func(*ownRecords) []byte
		reused bool
	}{
		{"a session ticket", func(r *ownRecords) []byte { return r.seal(handshakeRecord, ticket()) }, true},
		{"several", func(r *ownRecords) []byte {
			return append(r.seal(handshakeRecord, ticket()), r.seal(handshakeRecord, ticket())...)
		}, true},
		{"half a ticket", func(r *ownRecords) []byte { return r.seal(handshakeRecord, ticket())[:20] }, false},
		{"part of a header", func(r *ownRecords) []byte { return r.seal(handshakeRecord, ticket())[:3] }, false},
		{"data", func(r *ownRecords) []byte { return r.seal(dataRecord, []byte(ok)) }, false},
		{"a ticket and data", func(r *ownRecords) []byte {
			return append(r.seal(handshakeRecord, ticket()), r.seal(dataRecord, []byte(ok))...)
		}, false},
		{"no record", func(*ownRecords) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, trusting := identity(t)
			var log bytes.Buffer
			server.KeyLogWriter = &log
			server.SessionTicketsDisabled = true
			served, sent := make(chan struct{}), make(chan struct{}, 1)
			other := false
			at := peer(t, func(n int, raw *net.TCPConn, _ *bufio.Reader) {
				c := tls.Server(raw, server)
				br := bufio.NewReader(c)
				request(br)
				_, _ = io.WriteString(c, ok)
				if n > 1 {
					return
				}
				<-served
				if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
					other = true
					sent <- struct{}{}
					return
				}
				own := newOwnRecords(t, log.String(), 1)
				_, _ = raw.Write(tt.send(own))
				sent <- struct{}{}
				if request(br) != "" {
					_, _ = raw.Write(own.seal(dataRecord, []byte(ok)))
				}
			})
			c := newClient(t, func(c *Config) { c.TLS = trusting })
			if _, body, _, err := get(t, c, at); err != nil || body != "ok" {
				t.Fatal(body, err)
			}
			close(served)
			<-sent
			if other {
				t.Skip("this machine's cipher is not the one whose keys are derived here")
			}
			_, body, n, err := get(t, c, at)
			if err != nil || body != "ok" || (n.steps[1] == "reused") != tt.reused {
				t.Errorf("went %q and brought %q, %v", n, body, err)
			}
		})
	}
}

func TestAContextThatEndsInterruptsTLS(t *testing.T) {
	server, trusting := identity(t)
	waiting, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	at := securePeer(t, server, func(_ int, c *tls.Conn, br *bufio.Reader) {
		request(br)
		waiting <- struct{}{}
		_, _ = io.Copy(io.Discard, br)
		gone <- struct{}{}
	})
	cause := errors.New("the client left")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-waiting
		cancel(cause)
	}()
	c := newClient(t, func(c *Config) { c.TLS = trusting })
	if _, err := c.RoundTrip(newRequest(t, ctx, "GET", at, ""), &note{}, true); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	<-gone
}
