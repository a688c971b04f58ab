package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// talker is the instance of a gRPC service that is registered by hand, one
// method of each kind:
//
//	Unary     answers with the message and a "!", metadata both ways
//	Collect   answers with the messages it was sent, joined
//	Repeat    sends the message again and again until the call ends
//	Echo      sends each message back
//	Fail      has the status and message that the metadata "fail" names
//	Hang      tells of its deadline in the header and waits for the call's end,
//	          or only waits where the message says "quiet"
type talker struct {
	gone chan error // why calls of Hang ended
}

func (s *talker) desc() *grpc.ServiceDesc {
	unary := func(name string, f func(context.Context, string) (string, error)) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			out, err := f(ctx, in.GetValue())
			return wrapperspb.String(out), err
		}}
	}
	stream := func(name string, up, down bool, f func(grpc.ServerStream) error) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: name, ClientStreams: up, ServerStreams: down,
			Handler: func(_ any, st grpc.ServerStream) error { return f(st) }}
	}
	return &grpc.ServiceDesc{ServiceName: "test.Talker", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{unary("Unary", s.unary), unary("Fail", s.fail), unary("Hang", s.hang)},
		Streams: []grpc.StreamDesc{stream("Collect", true, false, s.collect), stream("Repeat", false, true, s.repeat), stream("Echo", true, true, s.echo)},
	}
}

func (s *talker) unary(ctx context.Context, in string) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("head", strings.Join(md["ask"], "+"), "raw-bin", strings.Join(md["raw-bin"], "")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("tail", "z", "tail-bin", "\x00\xff"))
	return in + "!", nil
}

func (s *talker) fail(ctx context.Context, _ string) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(`"` + md["fail"][0] + `"`)); err != nil {
		return "", err
	}
	return "", grpcstatus.Error(code, "100% über")
}

func (s *talker) hang(ctx context.Context, in string) (string, error) {
	left := "none"
	if d, ok := ctx.Deadline(); ok {
		left = time.Until(d).String()
	}
	if in != "quiet" {
		_ = grpc.SendHeader(ctx, metadata.Pairs("left", left))
	}
	<-ctx.Done()
	s.gone <- ctx.Err()
	return "", ctx.Err()
}

func (s *talker) collect(st grpc.ServerStream) error {
	var all []string
	for {
		m := new(wrapperspb.StringValue)
		switch err := st.RecvMsg(m); {
		case errors.Is(err, io.EOF):
			st.SetTrailer(metadata.Pairs("count", fmt.Sprint(len(all))))
			return st.SendMsg(wrapperspb.String(strings.Join(all, "")))
		case err != nil:
			return err
		}
		all = append(all, m.GetValue())
	}
}

func (s *talker) repeat(st grpc.ServerStream) error {
	m := new(wrapperspb.StringValue)
	if err := st.RecvMsg(m); err != nil {
		return err
	}
	for {
		if err := st.SendMsg(m); err != nil {
			s.gone <- st.Context().Err()
			return err
		}
	}
}

func (s *talker) echo(st grpc.ServerStream) error {
	st.SetTrailer(metadata.Pairs("tail", "z"))
	for {
		m := new(wrapperspb.StringValue)
		if err := st.RecvMsg(m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := st.SendMsg(m); err != nil {
			return err
		}
	}
}

// startTalker serves until the test ends, over TLS where creds are given.
func startTalker(t *testing.T, opts ...grpc.ServerOption) (s *talker, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &talker{gone: make(chan error, 16)}
	server := grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20))...)
	server.RegisterService(s.desc(), s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return s, l.Addr().String()
}

// line is a way from a gRPC client through the gateway to an instance.
type line struct {
	*site
	*talker
	*grpc.ClientConn
}

// stream begins a call of a method that streams.
func (l line) stream(ctx context.Context, method string) grpc.ClientStream {
	l.t.Helper()
	st, err := l.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Talker/"+method)
	if err != nil {
		l.t.Fatal(err)
	}
	return st
}

func (l line) send(st grpc.ClientStream, m string) {
	l.t.Helper()
	if err := st.SendMsg(wrapperspb.String(m)); err != nil {
		l.t.Fatal(err)
	}
}

func receive(st grpc.ClientStream) (string, error) {
	m := new(wrapperspb.StringValue)
	err := st.RecvMsg(m)
	return m.GetValue(), err
}

// call makes a call of a method that does not stream.
func (l line) call(ctx context.Context, method, in string, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	err := l.Invoke(ctx, "/test.Talker/"+method, wrapperspb.String(in), out, opts...)
	return out.GetValue(), err
}
