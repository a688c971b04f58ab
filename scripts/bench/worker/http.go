package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

// serveHTTP sends back what it gets, for ever.
func serveHTTP(addr string) error { return http.ListenAndServe(addr, http.HandlerFunc(echoHTTP)) }

func echoHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = w.Write(body) // the client may be gone
}

type httpCaller struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	size    int64
}

func dialHTTP(addr string, size int) (caller, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	head := fmt.Appendf(nil, "POST /echo HTTP/1.1\r\nHost: bench.test\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", size)
	return &httpCaller{conn, bufio.NewReader(conn), append(head, bytes.Repeat([]byte("x"), size)...), int64(size)}, nil
}

func (c *httpCaller) call(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || n != c.size {
		return fmt.Errorf("%s with %d of %d bytes", resp.Status, n, c.size)
	}
	return nil
}

func (c *httpCaller) close() { _ = c.conn.Close() }
