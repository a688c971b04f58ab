package proxy

import (
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

// What is known to go wrong on fast paths, and every other test that speaks
// HTTP/1.1 to an instance, holds for the fast engine.
func TestTheFastEngineToo(t *testing.T) {
	engineOfRigs = routing.EngineFast
	defer func() { engineOfRigs = routing.EngineStd }()
	g := newRig(t)
	if e, err := g.f.engines.get(g.service.Upstream); err != nil {
		t.Fatal(err)
	} else if _, ok := e.(*fastEngine); !ok {
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
}

func TestTheFastEngineIsForPlainHTTP(t *testing.T) {
	for _, protocol := range []string{"", "http", "https", "h2c", "grpc", "grpcs"} {
		for _, engine := range []string{"", routing.EngineStd, routing.EngineFast} {
			e, err := NewEngine(routing.Upstream{Protocol: protocol, Engine: engine})
			if err != nil {
				t.Fatal(err)
			}
			_, fast := e.(*fastEngine)
			if want := engine == routing.EngineFast && (protocol == "http" || protocol == ""); fast != want {
				t.Errorf("protocol %q with engine %q got a %T", protocol, engine, e)
			}
		}
	}
	if _, err := NewEngine(routing.Upstream{Protocol: "ftp", Engine: routing.EngineFast}); err == nil {
		t.Error("an engine for ftp was made")
	}
}

// A body that fails before it was read to its end reaches no instance, not
// even in part, where it is small enough to go out in one write.
func TestASmallBodyThatBreaksOffReachesNoInstance(t *testing.T) {
	engineOfRigs = routing.EngineFast
	defer func() { engineOfRigs = routing.EngineStd }()
	up := stuck(t)
	g := newRig(t, up.addr).serve()
	c, _ := g.raw("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhel")
	c.Close()
	x := g.exchange()
	if x.Refused == nil || x.Refused.Code != routing.CodeClientClosed || g.obs.of("neutral") != 1 || up.conns.Load() != 0 {
		t.Errorf("refused %v over %d connections, results %v", x.Refused, up.conns.Load(), g.obs.n)
	}
}
