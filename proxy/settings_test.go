package proxy

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/sluice-gateway/sluice/routing"
)

// A frame size of 0 once made the transport write empty frames for ever.
func TestRow46SettingsThatNobodyMaySendEndTheRequest(t *testing.T) {
	for _, size := range []uint32{0, 1, 16<<10 - 1, 1 << 24, 1<<32 - 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			instance := newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
				fr := http2.NewFramer(c, br)
				fr.AllowIllegalWrites = true
				if _, err := br.Discard(len(http2.ClientPreface)); err != nil {
					return
				}
				_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: size})
				for { // until the gateway ends the connection
					if _, err := fr.ReadFrame(); err != nil {
						return
					}
				}
			})
			g := newRig(t, instance.addr)
			g.service.Upstream = routing.Upstream{Protocol: "h2c"}
			g.serve()
			resp, body, err := g.do(g.request("POST", "/", strings.NewReader(strings.Repeat("x", 100<<10))))
			if err != nil || resp.StatusCode != 502 {
				t.Errorf("got %v %q, %v", resp, body, err)
			}
		})
	}
}
