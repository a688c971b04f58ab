package proxy

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

// Every test that speaks HTTP/1.1 to an instance runs with the fast engine,
// and here with the other one.
func TestTheStdEngineToo(t *testing.T) {
	engineOfRigs = routing.EngineStd
	defer func() { engineOfRigs = routing.EngineFast }()
	g := newRig(t)
	if e, err := g.f.engines.get(g.service.Upstream); err != nil {
		t.Fatal(err)
	} else if _, ok := e.(*stdEngine); !ok {
		t.Fatalf("the rig's engine is a %T", e)
	}
	for _, row := range []struct {
		name string
		test func(*testing.T)
	}{
		{"an instance dies in its chunked body", TestP4D1ABodyThatIsCutShortIsNotEnded},
		{"a request body that is malformed or aborted", TestD12ClientFaults},
		{"the client leaves a slow instance", TestAClientThatLeavesEndsTheUpstreamAtOnce},
		{"a stale connection under GET, PUT and POST", TestD6D7P5KeepAliveRace},
		{"a replay under POST", TestD6P5ReplayMendsTheKeepAliveRace},
		{"two lengths, odd encodings, endless heads", TestResponsesThatCannotBePassedOn},
		{"a length beside chunked", TestChunkedWinsOverContentLength},
		{"an early response", TestAnEarlyResponseDoesNotWaitForTheBody},
		{"Expect: 100-continue", TestExpectContinue},
		{"103, and others of its kind", TestEarlyHintsArriveAndOthersAreSwallowed},
		{"HEAD, 204 and 304", TestBodilessResponses},
		{"response trailers", TestTrailersArrive},
		{"request trailers", TestRow13RequestTrailersAreDropped},
		{"bytes nobody asked for", TestUnsolicitedBytesPoisonNothing},
		{"streams are flushed", TestStreamsAreFlushedAtOnce},
		{"an upgrade", TestWebSocket},
		{"an upgrade that fails", TestRow9AFailedHandshakeLeavesNothingBehind},
		{"instances that speak HTTP/2 or TLS", TestProtocolsToTheInstance},
		{"hop-by-hop fields and X-Forwarded-For", TestHeadersTowardsTheInstance},
		{"no other edits of a request", TestARequestReachesTheInstanceAsSent},
	} {
		t.Run(row.name, row.test)
	}
	for name, test := range map[string]func(*testing.T){
		"TestHeadersTowardsTheClient":             TestHeadersTowardsTheClient,
		"TestTraceparentContinuesTheTrace":        TestTraceparentContinuesTheTrace,
		"TestRow37RedirectsAreNotFollowed":        TestRow37RedirectsAreNotFollowed,
		"TestBodiesStreamBothWaysAtOnce":          TestBodiesStreamBothWaysAtOnce,
		"TestP15BodiesAreNotBuffered":             TestP15BodiesAreNotBuffered,
		"TestRetryRules":                          TestRetryRules,
		"TestALargePutThatBrokeIsNotReplayed":     TestALargePutThatBrokeIsNotReplayed,
		"TestRefusalsOfPick":                      TestRefusalsOfPick,
		"TestRow82RetriesAreBudgeted":             TestRow82RetriesAreBudgeted,
		"TestP9RefusedConnectionsCostNoBudget":    TestP9RefusedConnectionsCostNoBudget,
		"TestP1AnInstanceDies":                    TestP1AnInstanceDies,
		"TestHedge":                               TestHedge,
		"TestTimeouts":                            TestTimeouts,
		"TestEventStreamsOutliveTheRoutesTimeout": TestEventStreamsOutliveTheRoutesTimeout,
		"TestRow14ABodyThatDoesNotCome":           TestRow14ABodyThatDoesNotCome,
		"TestABodyTooLargeForThePluginIs413":      TestABodyTooLargeForThePluginIs413,
		"TestStickySessions":                      TestStickySessions,
	} {
		t.Run(name, test)
	}
	t.Run("tunnels", func(t *testing.T) {
		t.Run("over TLS", TestAWebSocketOverTLSToAnInstanceThatAlsoSpeaksHTTP2)
		t.Run("half-closed", TestAHalfCloseGoesThrough)
		t.Run("bad handshakes", TestHandshakesThatGoWrong)
	})
}

func TestWhichProtocolsTheFastEngineIsFor(t *testing.T) {
	for _, protocol := range []string{"", "http", "https", "h2c", "grpc", "grpcs"} {
		for _, engine := range []string{"", routing.EngineStd, routing.EngineFast} {
			e, err := NewEngine(routing.Upstream{Protocol: protocol, Engine: engine})
			if err != nil {
				t.Fatal(err)
			}
			_, fast := e.(*fastEngine)
			if want := engine != routing.EngineStd && (protocol == "" || strings.HasPrefix(protocol, "http")); fast != want {
				t.Errorf("protocol %q with engine %q got a %T", protocol, engine, e)
			}
		}
	}
	for _, u := range []routing.Upstream{{Protocol: "ftp"}, {Protocol: "https", TLS: routing.TLSSpec{CAFile: "/does/not/exist"}}} {
		if _, err := NewEngine(u); err == nil {
			t.Errorf("an engine for %+v was made", u)
		}
	}
}

// The instance chooses HTTP/1.1 or HTTP/2 when TLS is set up. It may speak one
// of them only, and another one after it was replaced.
func TestTheFastEngineSpeaksWhatAnInstanceOverTLSChooses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		protos []string
		want   string
		fast   bool
	}{
		{"HTTP/1.1 alone", []string{"http/1.1"}, "HTTP/1 tls=true body", true},
		{"no protocols", nil, "HTTP/1 tls=true body", true},
		{"both", []string{"h2", "http/1.1"}, "HTTP/2 tls=true body", false},
		{"both, and HTTP/1.1 first", []string{"http/1.1", "h2"}, "HTTP/1 tls=true body", true},
		{"HTTP/2 alone", []string{"h2"}, "HTTP/2 tls=true body", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := httptest.NewUnstartedServer(http.HandlerFunc(describe))
			up.Config.Protocols = new(http.Protocols)
			up.Config.Protocols.SetHTTP1(tt.protos == nil || slices.Contains(tt.protos, "http/1.1"))
			up.Config.Protocols.SetHTTP2(slices.Contains(tt.protos, "h2"))
			up.EnableHTTP2 = slices.Contains(tt.protos, "h2")
			up.TLS = &tls.Config{NextProtos: slices.Clone(tt.protos)}
			up.StartTLS()
			t.Cleanup(up.Close)
			up.TLS.NextProtos = tt.protos // the server adds its own
			g := newRig(t, addrOf(up))
			g.service.Upstream = routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{InsecureSkipVerify: true}}
			g.serve()
			for range 3 { // the first one finds out
				resp, body, err := g.do(g.request("POST", "/", strings.NewReader("body")))
				if err != nil || resp.StatusCode != 200 || body != tt.want {
					t.Fatalf("got %v %q, %v", resp, body, err)
				}
			}
			e, err := g.f.engines.get(g.service.Upstream)
			if err != nil {
				t.Fatal(err)
			}
			fast := e.(*fastEngine)
			open, _ := fast.client.Connections(addrOf(up))
			if _, other := fast.http2.Load(addrOf(up)); other == tt.fast || open > 0 != tt.fast {
				t.Errorf("%d connections of its own; the other engine's: %v", open, other)
			}
			fast.Leave(addrOf(up))
			if _, other := fast.http2.Load(addrOf(up)); other {
				t.Error("what an instance chose is remembered when it has left")
			}
		})
	}
}

// A body that fails before it was read to its end reaches no instance, not
// even in part, where it is small enough to go out in one write.
func TestASmallBodyThatBreaksOffReachesNoInstance(t *testing.T) {
	up := stuck(t)
	g := newRig(t, up.addr).serve()
	c, _ := g.raw("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhel")
	c.Close()
	x := g.exchange()
	if x.Refused == nil || x.Refused.Code != routing.CodeClientClosed || g.obs.of("neutral") != 1 || up.conns.Load() != 0 {
		t.Errorf("refused %v over %d connections, results %v", x.Refused, up.conns.Load(), g.obs.n)
	}
}
