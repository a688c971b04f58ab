package middleware

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The PROXY protocol, versions 1 and 2, as of HAProxy's proxy-protocol.txt.
const (
	proxyLine      = 107 // the longest header of version 1, CRLF included
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyBuffer    = 256
)

// proxyProtocol reads the header with which trusted proxies begin a
// connection. Whether there is one is never guessed: from them there has to
// be, from others there is none.
type proxyProtocol struct {
	timeout time.Duration // for the header; 0 is none
	log     *slog.Logger
}

func (p *proxyProtocol) conn(c *limitedConn, secure bool) net.Conn {
	return &proxiedConn{limitedConn: c, protocol: p, secure: secure, remote: c.Conn.RemoteAddr(), r: bufio.NewReaderSize(c.Conn, proxyBuffer)}
}

// proxiedConn is the connection of the client that its header names. The
// header is read when the connection is first asked for anything, which is on
// its own goroutine: one that does not come holds nobody up.
type proxiedConn struct {
	*limitedConn
	protocol *proxyProtocol
	secure   bool
	once     sync.Once
	remote   net.Addr
	ended    bool          // there is no client to read from
	r        *bufio.Reader // what was read with the header; nil once it is used up
}

// RemoteAddr is the client's address, or the proxy's where it speaks for
// itself.
func (c *proxiedConn) RemoteAddr() net.Addr {
	c.once.Do(c.begin)
	return c.remote
}

func (c *proxiedConn) Read(p []byte) (int, error) {
	c.once.Do(c.begin)
	if c.ended {
		return 0, io.EOF
	}
	if c.r != nil {
		if c.r.Buffered() > 0 {
			return c.r.Read(p)
		}
		c.r = nil
	}
	return c.limitedConn.Read(p)
}

// WriteTo keeps that of the TCP connection from passing by what was read with
// the header.
func (c *proxiedConn) WriteTo(w io.Writer) (int64, error) {
	c.once.Do(c.begin)
	if c.ended {
		return 0, nil
	}
	var written int64
	if c.r != nil {
		first, _ := c.r.Peek(c.r.Buffered())
		n, err := w.Write(first)
		if written = int64(n); err != nil {
			return written, err
		}
		c.r = nil
	}
	n, err := c.Conn.WriteTo(w)
	return written + n, err
}

// begin reads the header and counts the connection as the client's.
func (c *proxiedConn) begin() {
	if c.protocol.timeout > 0 {
		_ = c.SetReadDeadline(time.Now().Add(c.protocol.timeout))
		defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	}
	client, err := readProxyHeader(c.r)
	switch {
	case errors.Is(err, errProxyHeader): // somebody set one of the two up wrongly
		c.protocol.log.Warn("a trusted proxy's connection was closed", "proxy", c.remote, "error", err)
		c.ended = true
	case err != nil: // silence, or a probe that only connects
		c.ended = true
	case !client.IsValid():
	case c.seat.move(client.Addr()):
		c.remote = net.TCPAddrFromAddrPort(client)
	default:
		turnAway(c.TCPConn, c.secure)
		c.ended = true
	}
}

var errProxyHeader = errors.New("it does not begin with a PROXY header")

// readProxyHeader reads a header and nothing behind it. The address is the
// client's; it is not valid where the proxy speaks for itself (LOCAL), and
// 0.0.0.0 for a client without an address: it must not pass for the proxy,
// whose word about others is believed.
func readProxyHeader(r *bufio.Reader) (netip.AddrPort, error) {
	start, err := r.Peek(len(proxySignature)) // no header is shorter
	switch {
	case err != nil:
		return netip.AddrPort{}, err
	case string(start) == proxySignature:
		return readProxyBinary(r)
	case string(start[:6]) == "PROXY ":
		return readProxyLine(r)
	}
	return netip.AddrPort{}, errProxyHeader
}

func nobodysAddress() netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), 0) }

// readProxyLine reads version 1: PROXY TCP4 SOURCE DESTINATION PORT PORT.
func readProxyLine(r *bufio.Reader) (netip.AddrPort, error) {
	var none netip.AddrPort
	line := make([]byte, 0, proxyLine)
	for len(line) == 0 || line[len(line)-1] != '\n' {
		if len(line) == proxyLine {
			return none, errProxyHeader
		}
		b, err := r.ReadByte()
		if err != nil {
			return none, err
		}
		line = append(line, b)
	}
	text, crlf := strings.CutSuffix(string(line), "\r\n")
	words := strings.Split(text, " ")
	switch {
	case !crlf:
		return none, errProxyHeader
	case words[1] == "UNKNOWN":
		return nobodysAddress(), nil
	case len(words) != 6:
		return none, errProxyHeader
	}
	source, ok := proxyAddr(words[1], words[2], words[4])
	_, destinationOK := proxyAddr(words[1], words[3], words[5])
	if !ok || !destinationOK {
		return none, errProxyHeader
	}
	return source, nil
}

func proxyAddr(family, address, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	ok := err == nil && portErr == nil && a.Zone() == "" && (family == "TCP4" && a.Is4() || family == "TCP6" && a.Is6())
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}

// readProxyBinary reads version 2. What stands behind the addresses, 64 KiB
// at most, is skipped and never held.
func readProxyBinary(r *bufio.Reader) (netip.AddrPort, error) {
	var none netip.AddrPort
	var head [len(proxySignature) + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return none, err
	}
	command, family := head[12], head[13]
	length := int(binary.BigEndian.Uint16(head[14:]))
	var client netip.AddrPort
	var size int // of one address
	switch {
	case command == 0x20: // LOCAL: the rest says nothing
	case command != 0x21:
		return none, errProxyHeader
	case family == 0x11: // TCP over IPv4
		size = 4
	case family == 0x21: // TCP over IPv6
		size = 16
	case family == 0x00 || family == 0x31: // not told, or a Unix socket
		client = nobodysAddress()
	default:
		return none, errProxyHeader
	}
	if size > 0 {
		var block [36]byte // two addresses, two ports
		n := 2*size + 4
		if length < n {
			return none, errProxyHeader
		}
		if _, err := io.ReadFull(r, block[:n]); err != nil {
			return none, err
		}
		length -= n
		a, _ := netip.AddrFromSlice(block[:size])
		client = netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(block[2*size:]))
	}
	_, err := r.Discard(length)
	return client, err
}
