package proxy

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

// TLSConfig compiles how instances are spoken to over TLS, for those who
// speak to them beside the forwarder: health checks.
func TLSConfig(spec routing.TLSSpec) (*tls.Config, error) { return tlsConfig(spec) }

// tunnelPoll is how often AwaitTunnels looks; it runs once, at shutdown.
const tunnelPoll = 20 * time.Millisecond

// AwaitTunnels waits until no upgraded connection is open or ctx ends, and
// returns how many are open then.
func (f *Forwarder) AwaitTunnels(ctx context.Context) int {
	tick := time.NewTicker(tunnelPoll)
	defer tick.Stop()
	for {
		n := f.tunnels.count()
		if n == 0 {
			return 0
		}
		select {
		case <-ctx.Done():
			return n
		case <-tick.C:
		}
	}
}

func (s *tunnels) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}
