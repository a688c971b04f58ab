package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// callTimeout bounds one call. A page of a large list over a slow line fits.
const callTimeout = 5 * time.Second

// dial makes a client that lives until it is closed or ctx ends. With a user
// it asks for a token first; otherwise it does not wait for the connection.
func (c Config) dial(ctx context.Context, opts ...grpc.DialOption) (*clientv3.Client, error) {
	password, err := c.password()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := c.tls()
	if err != nil {
		return nil, err
	}
	// gRPC waits up to two minutes between connection attempts unless told
	// otherwise, and an etcd that is back would go unnoticed that long.
	opts = append(opts, grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{
			BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond,
		},
		MinConnectTimeout: 2 * time.Second,
	}))
	opts = append(opts, grpc.WithChainUnaryInterceptor(tellCause))
	return clientv3.New(clientv3.Config{
		Context:     ctx,
		Endpoints:   c.Endpoints,
		Username:    c.Username,
		Password:    password,
		TLS:         tlsConfig,
		DialTimeout: callTimeout,
		// gRPC raises five seconds to its own least of ten; the progress
		// requests of the source notice sooner.
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		// The client logs every attempt; what matters is logged here.
		Logger:      zap.NewNop(),
		DialOptions: opts,
	})
}

// tellCause keeps the reason why there was no connection within a call's
// deadline (refused, a certificate that is not trusted), which the client
// would replace by the deadline alone.
func tellCause(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if status.Code(err) != codes.DeadlineExceeded {
		return err
	}
	_, cause, ok := strings.Cut(status.Convert(err).Message(), "latest balancer error: ")
	if !ok {
		return err
	}
	return status.Error(codes.Unknown, "no connection in time: "+cause)
}

// retry spaces attempts: jittered, doubling, and starting over once reset.
type retry struct{ attempts int }

const (
	firstDelay = 100 * time.Millisecond
	// longestDelay keeps the return of etcd visible within a second.
	longestDelay = 500 * time.Millisecond
	// deniedDelay is for a refusal, which costs the server a password hash.
	deniedDelay = 2 * time.Second
)

func (r *retry) reset() { r.attempts = 0 }

// next is the delay after a failure with err: between half and all of a
// doubling step.
func (r *retry) next(err error) time.Duration {
	limit := longestDelay
	if denied(err) {
		limit = deniedDelay
	}
	step := min(firstDelay<<min(r.attempts, 10), limit)
	r.attempts++
	return step/2 + rand.N(step/2)
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// denied reports whether etcd refused the user or the token.
func denied(err error) bool {
	if errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrUserEmpty) ||
		errors.Is(err, rpctypes.ErrUserNotFound) {
		return true
	}
	var coded rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &coded) {
		code = coded.Code()
	}
	return code == codes.Unauthenticated || code == codes.PermissionDenied
}

// advise adds to a refusal what of the configuration to look at.
func (c Config) advise(err error) error {
	text := err.Error()
	switch {
	case denied(err):
		return fmt.Errorf("%w (etcd.username and etcd.password, or etcd.password_file, must be those of a user who may read and write below %s)",
			err, c.prefix())
	case strings.Contains(text, "handshake failed"), strings.Contains(text, "server preface"),
		// In TLS 1.3 a server refuses a client's certificate after the
		// client's handshake is over: what the client sees of it is a race.
		strings.HasPrefix(c.Endpoints[0], "https://") && (strings.Contains(text, "broken pipe") || strings.Contains(text, "connection reset")):
		return fmt.Errorf("%w (etcd.endpoints must say https:// where etcd speaks TLS; etcd.tls.ca_file must have signed its certificate, and etcd.tls.cert_file and key_file must be what it accepts)",
			err)
	}
	return err
}
