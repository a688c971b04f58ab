package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ample is a window that no measurement uses up.
const ample = 1 << 30

// grpcCaller makes one unary call at a time on an HTTP/2 connection of its
// own. It is written on frames, as httpCaller is on bytes: with grpc-go's
// client the client would cost more than the gateway's half, and the figure
// be its.
type grpcCaller struct {
	conn    net.Conn
	frames  *http2.Framer
	request []byte // HEADERS and DATA; the stream's number is put in
	data    int    // where the frame of DATA begins in request
	size    int    // of a message with its prefix
	stream  uint32
	window  int // what the connection may still send
}

func dialGRPC(addr string, size int) (caller, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &grpcCaller{conn: conn, stream: 1, window: 1<<16 - 1, frames: http2.NewFramer(conn, bufio.NewReader(conn))}
	c.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.frames.SetReuseFrames()
	if err := errors.Join(c.prepare(addr, size), c.greet()); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// prepare writes the request, whose head leaves no trace in the other side's
// table and so is the same each time.
func (c *grpcCaller) prepare(addr string, size int) error {
	message, err := proto.Marshal(wrapperspb.Bytes(bytes.Repeat([]byte("x"), size)))
	if err != nil {
		return err
	}
	message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	var block, out bytes.Buffer
	e := hpack.NewEncoder(&block)
	e.SetMaxDynamicTableSize(0)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/" + service + "/" + method}, {":authority", addr},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "bench"},
	} {
		if err := e.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return err
		}
	}
	f := http2.NewFramer(&out, nil)
	err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	c.data = out.Len()
	err = errors.Join(err, f.WriteData(1, true, message))
	c.request, c.size = out.Bytes(), len(message)
	return err
}

// greet begins the connection (RFC 9113 section 3.4).
func (c *grpcCaller) greet() error {
	_, err := c.conn.Write([]byte(http2.ClientPreface))
	return errors.Join(err,
		c.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: ample}),
		c.frames.WriteWindowUpdate(0, ample))
}

func (c *grpcCaller) call(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if c.window -= c.size; c.window < 0 {
		return errors.New("the other side does not open its window")
	}
	const number = 5 // where a frame's head has that of its stream
	binary.BigEndian.PutUint32(c.request[number:], c.stream)
	binary.BigEndian.PutUint32(c.request[c.data+number:], c.stream)
	c.stream += 2
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	got := 0
	for {
		frame, err := c.frames.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			got += len(f.Data())
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); status != "" && status != "200" {
				return fmt.Errorf("answered with status %s", status)
			}
			if f.StreamEnded() {
				return c.ended(f, got)
			}
		default:
			if err := c.control(frame); err != nil {
				return err
			}
		}
	}
}

// ended is the end of a call by its trailers.
func (c *grpcCaller) ended(trailers *http2.MetaHeadersFrame, got int) error {
	status := "none"
	for _, field := range trailers.Fields {
		if field.Name == "grpc-status" {
			status = field.Value
		}
	}
	if status != "0" || got != c.size {
		return fmt.Errorf("grpc-status %s with %d of %d bytes", status, got, c.size)
	}
	return nil
}

// control answers what is about the connection.
func (c *grpcCaller) control(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.frames.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.frames.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int(f.Increment)
		}
	case *http2.RSTStreamFrame:
		return fmt.Errorf("the stream was reset: %s", f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("the connection was ended: %s", f.ErrCode)
	}
	return nil
}

func (c *grpcCaller) close() { _ = c.conn.Close() }
