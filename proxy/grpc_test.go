package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-gateway/sluice/routing"
)

// talker is a gRPC service with every kind of method, registered by hand.
type talker interface {
	unary(context.Context, string) (string, error)
	stream(grpc.ServerStream) error
}

var talkerDesc = grpc.ServiceDesc{
	ServiceName: "test.Talker", HandlerType: (*talker)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := dec(in); err != nil {
			return nil, err
		}
		s, err := srv.(talker).unary(ctx, in.GetValue())
		return wrapperspb.String(s), err
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, s grpc.ServerStream) error { return srv.(talker).stream(s) }}},
}

// script is a talker of which each test says what it does.
type script struct {
	onUnary  func(context.Context, string) (string, error)
	onStream func(grpc.ServerStream) error
}

func (s script) unary(ctx context.Context, in string) (string, error) { return s.onUnary(ctx, in) }
func (s script) stream(st grpc.ServerStream) error                    { return s.onStream(st) }

// talk starts a real gRPC server behind the gateway and a client before it.
func talk(t *testing.T, s script, adapt func(*rig)) (*grpc.ClientConn, *rig) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	srv.RegisterService(&talkerDesc, s)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		<-served
	})
	g := newRig(t, l.Addr().String())
	g.service.Upstream.Protocol = routing.ProtocolGRPC
	g.service.Idle = 5 * time.Second
	if adapt != nil {
		adapt(g)
	}
	g.serve()
	conn, err := grpc.NewClient(g.addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, g
}

func call1(ctx context.Context, conn *grpc.ClientConn, in string, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, "/test.Talker/Unary", wrapperspb.String(in), out, opts...)
	return out.GetValue(), err
}

// Row 80 and D2: gRPC passes unharmed.
func TestRow80D2GRPC(t *testing.T) {
	t.Run("a unary call with metadata both ways", func(t *testing.T) {
		conn, g := talk(t, script{onUnary: func(ctx context.Context, in string) (string, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			_ = grpc.SetHeader(ctx, metadata.Pairs("head", strings.Join(md["ask"], "+")))
			_ = grpc.SetTrailer(ctx, metadata.Pairs("tail", "z"))
			return in + "!", nil
		}}, nil)
		var head, tail metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), "ask", "me", "ask", "too")
		out, err := call1(ctx, conn, strings.Repeat("x", 100_000), grpc.Header(&head), grpc.Trailer(&tail))
		if err != nil || len(out) != 100_001 {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
		if fmt.Sprint(head["head"], tail["tail"]) != "[me+too] [z]" {
			t.Errorf("got %v %v", head, tail)
		}
		if g.exchange(); g.obs.of("success") != 1 {
			t.Errorf("results %v", g.obs.n)
		}
	})
	t.Run("a response of trailers only", func(t *testing.T) {
		conn, g := talk(t, script{onUnary: func(context.Context, string) (string, error) {
			return "", status.Error(codes.NotFound, "no such thing")
		}}, nil)
		if _, err := call1(t.Context(), conn, ""); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "no such thing" {
			t.Errorf("got %v", err)
		}
		if g.exchange(); g.obs.of("success") != 1 {
			t.Errorf("results %v", g.obs.n)
		}
	})
	t.Run("an empty stream", func(t *testing.T) {
		conn, _ := talk(t, script{onStream: func(grpc.ServerStream) error { return nil }}, nil)
		s, err := conn.NewStream(t.Context(), &talkerDesc.Streams[0], "/test.Talker/Stream")
		if err != nil {
			t.Fatal(err)
		}
		_ = s.CloseSend()
		if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ping-pong, longer than the route's timeout", func(t *testing.T) {
		conn, _ := talk(t, script{onStream: func(s grpc.ServerStream) error {
			for {
				m := new(wrapperspb.StringValue)
				if err := s.RecvMsg(m); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				if err := s.SendMsg(m); err != nil {
					return err
				}
			}
		}}, func(g *rig) { g.route.Timeout = 50 * time.Millisecond })
		s, err := conn.NewStream(t.Context(), &talkerDesc.Streams[0], "/test.Talker/Stream")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for i := 0; i < 20 || time.Since(begun) < 150*time.Millisecond; i++ {
			want := fmt.Sprint("m", i)
			if err := s.SendMsg(wrapperspb.String(want)); err != nil {
				t.Fatal(err)
			}
			m := new(wrapperspb.StringValue)
			if err := s.RecvMsg(m); err != nil || m.GetValue() != want {
				t.Fatalf("got %q %v", m.GetValue(), err)
			}
		}
		_ = s.CloseSend()
		if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("unavailable speaks against the instance", func(t *testing.T) {
		conn, g := talk(t, script{onUnary: func(context.Context, string) (string, error) {
			return "", status.Error(codes.Unavailable, "not now")
		}}, nil)
		if _, err := call1(t.Context(), conn, ""); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		if g.exchange(); g.obs.of("server_error") != 1 {
			t.Errorf("results %v", g.obs.n)
		}
	})
}

func TestGRPCDeadlinesAndCancellation(t *testing.T) {
	hang := func() (script, chan time.Duration, chan struct{}) {
		left, gone := make(chan time.Duration, 1), make(chan struct{}, 1)
		return script{onUnary: func(ctx context.Context, _ string) (string, error) {
			d, ok := ctx.Deadline()
			if !ok {
				d = time.Now().Add(-time.Hour)
			}
			left <- time.Until(d)
			<-ctx.Done()
			gone <- struct{}{}
			return "", ctx.Err()
		}}, left, gone
	}
	t.Run("the client's deadline reaches the instance and ends the call", func(t *testing.T) {
		s, left, gone := hang()
		conn, g := talk(t, s, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := call1(ctx, conn, ""); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if d := <-left; d <= 0 || d > 200*time.Millisecond {
			t.Errorf("the instance was left %v", d)
		}
		<-gone
		if g.exchange(); g.obs.of("timed_out") != 0 {
			t.Errorf("a short deadline was held against the instance: %v", g.obs.n)
		}
	})
	t.Run("a cancelled call is cancelled at the instance", func(t *testing.T) {
		s, left, gone := hang()
		conn, g := talk(t, s, nil)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-left
			cancel()
		}()
		if _, err := call1(ctx, conn, ""); status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
		<-gone
		if x := g.exchange(); x.Refused == nil || x.Refused.Code != routing.CodeClientClosed || g.obs.of("neutral") != 1 {
			t.Errorf("refused %v, results %v", x.Refused, g.obs.n)
		}
	})
	t.Run("the route's timeout bounds a unary call", func(t *testing.T) {
		s, _, gone := hang()
		conn, g := talk(t, s, func(g *rig) { g.route.Timeout = 50 * time.Millisecond })
		if _, err := call1(t.Context(), conn, ""); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		<-gone
		if g.exchange(); g.obs.of("timed_out") != 1 {
			t.Errorf("results %v", g.obs.n)
		}
	})
	for name, adapt := range map[string]func(*rig, context.Context) context.Context{
		"the deadline": func(g *rig, ctx context.Context) context.Context {
			g.edge = func(_ *http.Request, x *routing.Exchange) { x.Start = x.Start.Add(-time.Hour + 100*time.Millisecond) }
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			t.Cleanup(cancel)
			return ctx
		},
		"silence": func(g *rig, ctx context.Context) context.Context {
			g.service.Idle = 100 * time.Millisecond
			return ctx
		},
	} {
		t.Run(name+" ends a call whose head has gone out with a status", func(t *testing.T) {
			ctx := t.Context()
			// The instance knows the deadline too, and must not be the first
			// to say that it passed.
			over := make(chan struct{})
			conn, g := talk(t, script{onUnary: func(ctx context.Context, _ string) (string, error) {
				_ = grpc.SendHeader(ctx, metadata.Pairs("head", "a"))
				<-over
				return "", ctx.Err()
			}}, func(g *rig) { ctx = adapt(g, ctx) })
			t.Cleanup(func() { close(over) })
			var head metadata.MD
			if _, err := call1(ctx, conn, "", grpc.Header(&head)); status.Code(err) != codes.DeadlineExceeded || len(head["head"]) != 1 {
				t.Errorf("got %v after the head %v", err, head)
			}
			if x := g.exchange(); x.Aborted != "upstream" || g.obs.of("neutral") != 1 {
				t.Errorf("aborted by %q, results %v", x.Aborted, g.obs.n)
			}
		})
	}
	t.Run("an instance that ends a call at its deadline is not blamed", func(t *testing.T) {
		conn, g := talk(t, script{onUnary: func(ctx context.Context, _ string) (string, error) {
			_ = grpc.SendHeader(ctx, nil)
			<-ctx.Done()
			return "", ctx.Err()
		}}, func(g *rig) {
			g.edge = func(_ *http.Request, x *routing.Exchange) { x.Start = x.Start.Add(-time.Hour + 30*time.Millisecond) }
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for range 10 {
			if _, err := call1(ctx, conn, ""); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
			g.exchange()
		}
		// Whichever of the two is first.
		if g.obs.of("neutral")+g.obs.of("success") != 10 {
			t.Errorf("results %v", g.obs.n)
		}
	})
	t.Run("an instance that is gone is unavailable", func(t *testing.T) {
		conn, _ := talk(t, script{}, func(g *rig) { g.instances(refused(t)) })
		if _, err := call1(t.Context(), conn, ""); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	})
}

// The time that a call has spent here, or at another instance, is over.
func TestAnInstanceIsLeftWhatRemainsOfTheClientsDeadline(t *testing.T) {
	left := make(chan time.Duration, 1)
	conn, _ := talk(t, script{onUnary: func(ctx context.Context, _ string) (string, error) {
		d, _ := ctx.Deadline()
		left <- time.Until(d)
		return "", nil
	}}, func(g *rig) {
		g.edge = func(_ *http.Request, x *routing.Exchange) { x.Start = x.Start.Add(-time.Hour) }
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	defer cancel()
	if _, err := call1(ctx, conn, ""); err != nil {
		t.Fatal(err)
	}
	if d := <-left; d > time.Hour || d < 59*time.Minute {
		t.Errorf("of two hours, one gone, the instance was left %v", d)
	}
}

func TestGRPCTimeoutsAreWrittenAsTheyAreRead(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "1n", 0: "1n", 7: "7n", 99_999_999: "99999999n", 100_000_000: "100000u",
		2*time.Second + 1: "2000001u", time.Hour: "3600000m", 30 * time.Hour: "108000S", 1<<63 - 1: "2562048H",
	} {
		if got := grpcTimeoutText(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestGRPCTimeout(t *testing.T) {
	tests := map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond,
		"5u": 5 * time.Microsecond, "6n": 6, "99999999H": 1<<63 - 1, "0S": 0,
		"": -1, "S": -1, "5": -1, "5x": -1, "-5S": -1, "+5S": -1, "123456789S": -1, "1.5S": -1,
	}
	for in, want := range tests {
		d, ok := grpcTimeout(http.Header{"Grpc-Timeout": {in}})
		if !ok {
			d = -1
		}
		if d != want {
			t.Errorf("%q is %v, want %v", in, d, want)
		}
	}
}
