package main

import (
	"bytes"
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// method is unary: a message of bytes, sent back.
const service, method = "bench.Echo", "Unary"

// serveGRPC sends back what it gets, for ever.
func serveGRPC(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return newGRPC().Serve(l)
}

func newGRPC() *grpc.Server {
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: method, Handler: echo}},
	}, struct{}{})
	return s
}

func echo(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	message := new(wrapperspb.BytesValue)
	return message, decode(message)
}

type grpcCaller struct {
	conn *grpc.ClientConn
	out  *wrapperspb.BytesValue
}

func dialGRPC(addr string, size int) (caller, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &grpcCaller{conn, wrapperspb.Bytes(bytes.Repeat([]byte("x"), size))}, nil
}

func (c *grpcCaller) call(ctx context.Context) error {
	in := new(wrapperspb.BytesValue)
	if err := c.conn.Invoke(ctx, "/"+service+"/"+method, c.out, in); err != nil {
		return err
	}
	if len(in.Value) != len(c.out.Value) {
		return fmt.Errorf("%d of %d bytes came back", len(in.Value), len(c.out.Value))
	}
	return nil
}

func (c *grpcCaller) close() { _ = c.conn.Close() }
