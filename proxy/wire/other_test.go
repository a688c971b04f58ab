package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"time"
)

// other is what an exchange is made with: it reads one request, sends answer
// and closes. With server set, it speaks TLS, and client trusts it.
type other struct {
	answer         []byte
	server, client *tls.Config
	got            string // what was sent to it, if that was whole
	done           chan struct{}
}

// dial returns a connection to o; there is one.
func (o *other) dial(context.Context, string) (net.Conn, error) {
	here, there, err := o.pair()
	if err != nil {
		return nil, err
	}
	o.done = make(chan struct{})
	go func() {
		defer close(o.done)
		defer there.Close()
		nc := there
		if o.server != nil {
			nc = tls.Server(there, o.server)
		}
		if o.got = request(bufio.NewReader(nc)); o.got != "" {
			_, _ = nc.Write(o.answer)
		}
	}()
	return here, nil
}

// wait returns when o is done with the connection, if there was one.
func (o *other) wait() {
	if o.done != nil {
		<-o.done
	}
}

// pair returns the ends of a connection: under TLS of a real one, which takes
// what is written although nobody reads.
func (o *other) pair() (here, there net.Conn, err error) {
	if o.server == nil {
		here, there = net.Pipe()
		return here, there, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	there, err = l.Accept()
	return here, there, err
}

// overWire and overStd make one exchange each.
func (o *other) overWire(t testing.TB, req *http.Request) outcome {
	c, err := New(Config{
		Dial: o.dial, TLS: o.client, IdleTimeout: time.Minute, IdlePerAddress: 1, MaxHead: maxHeadCompared,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer o.wait()
	defer c.CloseIdle()
	return look(c.RoundTrip(req, &note{}, false))
}

func (o *other) overStd(req *http.Request) outcome {
	if o.client != nil {
		req.URL.Scheme = "https"
	}
	tr := &http.Transport{
		DialContext:            func(ctx context.Context, _, a string) (net.Conn, error) { return o.dial(ctx, a) },
		TLSClientConfig:        o.client.Clone(),
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeadCompared,
	}
	defer o.wait()
	defer tr.CloseIdleConnections()
	return look(tr.RoundTrip(req))
}
