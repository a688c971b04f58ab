package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// TestRow80GRPCThroughTheGateway runs real gRPC clients and servers, without
// TLS on both sides of the gateway and with TLS on both.
func TestRow80GRPCThroughTheGateway(t *testing.T) {
	ca := testenv.NewCA(t)
	certFile, keyFile := ca.Issue(t, "gateway", "secure.test")
	instanceCert, err := credentials.NewServerTLSFromFile(ca.Issue(t, "talker", "127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	secure := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	s := newFixed(t, testenv.GatewayOptions{ListenExtra: []string{fmt.Sprintf("https: %q", secure)},
		Extra: fmt.Sprintf("tls: {certificates: [{cert_file: %q, key_file: %q}]}\n", certFile, keyFile)})
	plainTalker, plainAddr := startTalker(t)
	secureTalker, secureAddr := startTalker(t, grpc.Creds(instanceCert))
	// One route each: what is sent over TLS goes to the instance with TLS.
	s.apply(map[string]string{
		"/sluice/services/plain":  fmt.Sprintf(`{"protocol":"grpc","targets":[{"address":%q}]}`, plainAddr),
		"/sluice/services/secure": fmt.Sprintf(`{"protocol":"grpcs","tls":{"ca_file":%q},"targets":[{"address":%q}]}`, ca.File, secureAddr),
		"/sluice/services/gone":   `{"protocol":"grpc","targets":[{"address":"127.0.0.1:1"}]}`,
		"/sluice/routes/plain":    `{"path":"/test.Talker/*","hosts":["plain.test"],"service":"plain"}`,
		"/sluice/routes/secure":   `{"path":"/test.Talker/*","hosts":["secure.test"],"service":"secure"}`,
		"/sluice/routes/gone":     `{"path":"/gone.Talker/*","service":"gone"}`,
		"/sluice/routes/empty":    `{"path":"/empty.Talker/*","service":"nobody"}`,
		"/sluice/routes/keyed":    `{"path":"/keyed.Talker/*","service":"plain","plugins":{"api_key":{"header":"X-API-Key"}}}`,
		"/sluice/routes/closed":   `{"path":"/closed.Talker/*","service":"plain","plugins":{"ip_filter":{"deny":["0.0.0.0/0"]}}}`,
		"/sluice/routes/short":    `{"path":"/short.Talker/*","service":"plain","rewrite":"/test.Talker/*","timeout":"300ms"}`,
		"/sluice/routes/limited":  `{"path":"/limited.Talker/*","service":"plain","rewrite":"/test.Talker/*","plugins":{"body_limit":{"max_bytes":100}}}`,
	})
	for _, l := range []struct {
		name   string
		addr   string
		talker *talker
		creds  credentials.TransportCredentials
	}{
		{"plain", s.gateway.Addr, plainTalker, insecure.NewCredentials()},
		{"secure", secure, secureTalker, credentials.NewTLS(&tls.Config{RootCAs: roots})},
	} {
		t.Run(l.name, func(t *testing.T) {
			conn, err := grpc.NewClient(l.addr, grpc.WithTransportCredentials(l.creds), grpc.WithAuthority(l.name+".test"),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			for _, c := range []struct {
				name string
				test func(*testing.T, line)
			}{
				{"a unary call with metadata and trailers", grpcUnary},
				{"a client that streams", grpcCollect},
				{"an instance that streams, until it is cancelled", grpcRepeat},
				{"both stream, one waits for the other", grpcEcho},
				{"messages of more than 4 MB", grpcLarge},
				{"statuses of the instance, trailers only", grpcStatuses},
				{"deadlines are kept and passed on", grpcDeadline},
				{"a client that cancels", grpcCancel},
				{"what the gateway refuses", grpcRefusals},
			} {
				t.Run(c.name, func(t *testing.T) { c.test(t, line{s.at(t), l.talker, conn}) })
			}
		})
	}
}

func grpcUnary(t *testing.T, l line) {
	var head, tail metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "ask", "me", "ask", "too", "raw-bin", "\x00\x01\xfe")
	out, err := l.call(ctx, "Unary", "hello", grpc.Header(&head), grpc.Trailer(&tail))
	equal(t, "answer", fmt.Sprint(out, err), "hello!<nil>")
	equal(t, "metadata", fmt.Sprintf("%q %q %q %q", head["head"], head["raw-bin"], tail["tail"], tail["tail-bin"]),
		`["me+too"] ["\x00\x01\xfe"] ["z"] ["\x00\xff"]`)
	equal(t, "request id", len(head["x-request-id"]), 1)
	equal(t, "a message of nothing", fmt.Sprint(l.call(t.Context(), "Unary", "")), "!<nil>")
}

func grpcCollect(t *testing.T, l line) {
	st := l.stream(t.Context(), "Collect")
	for i := range 100 {
		l.send(st, fmt.Sprint(i, ","))
	}
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	out, err := receive(st)
	equal(t, "answer", fmt.Sprint(len(strings.Split(out, ",")), err), "101 <nil>")
	_, err = receive(st)
	equal(t, "end", fmt.Sprint(err, st.Trailer()["count"]), "EOF [100]")
}

func grpcRepeat(t *testing.T, l line) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st := l.stream(ctx, "Repeat")
	l.send(st, "again")
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		out, err := receive(st)
		equal(t, "message", fmt.Sprint(out, err), "again<nil>")
	}
	cancel()
	equal(t, "why it ended at the instance", <-l.gone, context.Canceled)
}

func grpcEcho(t *testing.T, l line) {
	st := l.stream(t.Context(), "Echo")
	for i := range 50 {
		l.send(st, fmt.Sprint("m", i))
		out, err := receive(st)
		equal(t, "message", fmt.Sprint(out, err), fmt.Sprint("m", i, "<nil>"))
	}
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	_, err := receive(st)
	equal(t, "end", fmt.Sprint(err, st.Trailer()["tail"]), "EOF [z]")
}

func grpcLarge(t *testing.T, l line) {
	large := strings.Repeat("m", 20<<20)
	out, err := l.call(t.Context(), "Unary", large)
	equal(t, "a unary call", fmt.Sprint(len(out), err), fmt.Sprint(len(large)+1, " <nil>"))
	st := l.stream(t.Context(), "Echo")
	for range 3 {
		l.send(st, large)
		out, err := receive(st)
		equal(t, "a message of a stream", fmt.Sprint(out == large, err), "true <nil>")
	}
	_ = st.CloseSend()
	_, err = receive(st)
	equal(t, "end", err, io.EOF)
}

func grpcStatuses(t *testing.T, l line) {
	for _, name := range []string{"NOT_FOUND", "UNAVAILABLE", "INTERNAL", "DATA_LOSS", "UNAUTHENTICATED"} {
		var want codes.Code
		if err := want.UnmarshalJSON([]byte(`"` + name + `"`)); err != nil {
			t.Fatal(err)
		}
		_, err := l.call(metadata.AppendToOutgoingContext(t.Context(), "fail", name), "Fail", "")
		got := grpcstatus.Convert(err)
		equal(t, name, fmt.Sprint(got.Code(), " ", got.Message()), fmt.Sprint(want, " 100% über"))
	}
	_, err := l.call(t.Context(), "Nothing", "")
	equal(t, "a method that the instance does not have", grpcstatus.Code(err), codes.Unimplemented)
	equal(t, "afterwards", fmt.Sprint(l.call(t.Context(), "Unary", "x")), "x!<nil>")
}

func grpcDeadline(t *testing.T, l line) {
	const allowed = 3 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), allowed)
	defer cancel()
	var head metadata.MD
	_, err := l.call(ctx, "Hang", "", grpc.Header(&head))
	if grpcstatus.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if err := <-l.gone; err == nil {
		t.Error("the instance was not told")
	}
	left, err := time.ParseDuration(strings.Join(head["left"], ""))
	if err != nil || left <= 0 || left >= allowed {
		t.Errorf("the instance was left %q of %v", head["left"], allowed)
	}
	// A client that sets none gets none from the gateway.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	st := l.stream(ctx, "Hang")
	l.send(st, "")
	_ = st.CloseSend()
	md, err := st.Header()
	equal(t, "without a deadline", fmt.Sprint(md["left"], err), "[none] <nil>")
	cancel()
	<-l.gone
}

func grpcCancel(t *testing.T, l line) {
	ctx, cancel := context.WithCancel(t.Context())
	st := l.stream(ctx, "Hang")
	l.send(st, "")
	_ = st.CloseSend()
	if _, err := st.Header(); err != nil {
		t.Fatal(err)
	}
	cancel()
	equal(t, "at the instance", <-l.gone, context.Canceled)
	_, err := receive(st)
	equal(t, "at the client", grpcstatus.Code(err), codes.Canceled)
}

// What the gateway answers itself is a status too, of trailers only.
func grpcRefusals(t *testing.T, l line) {
	for path, want := range map[string]string{
		"/gone.Talker/Unary":    "Unavailable upstream_unreachable",
		"/empty.Talker/Unary":   "Unavailable no_healthy_instance",
		"/keyed.Talker/Unary":   "Unauthenticated unauthenticated",
		"/closed.Talker/Unary":  "PermissionDenied forbidden",
		"/limited.Talker/Unary": "ResourceExhausted body_too_large",
		"/short.Talker/Hang":    "DeadlineExceeded upstream_timeout",
		"/unknown.Talker/Unary": "Unimplemented route_not_found",
	} {
		in := "quiet"
		if strings.HasPrefix(path, "/limited") {
			in = strings.Repeat("x", 200)
		}
		err := l.Invoke(t.Context(), path, wrapperspb.String(in), new(wrapperspb.StringValue))
		got := grpcstatus.Convert(err)
		code, _, _ := strings.Cut(got.Message(), ":")
		equal(t, path, fmt.Sprint(got.Code(), " ", code), want)
	}
}
