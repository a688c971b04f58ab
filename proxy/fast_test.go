package proxy

import (
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

// Every test that speaks HTTP/1.1 to an instance holds for the fast engine.
func TestTheFastEngineToo(t *testing.T) {
	engineOfRigs = routing.EngineFast
	defer func() { engineOfRigs = routing.EngineStd }()
	for name, test := range map[string]func(*testing.T){
		"TestARequestReachesTheInstanceAsSent":        TestARequestReachesTheInstanceAsSent,
		"TestHeadersTowardsTheInstance":               TestHeadersTowardsTheInstance,
		"TestHeadersTowardsTheClient":                 TestHeadersTowardsTheClient,
		"TestTraceparentContinuesTheTrace":            TestTraceparentContinuesTheTrace,
		"TestRow37RedirectsAreNotFollowed":            TestRow37RedirectsAreNotFollowed,
		"TestRow13RequestTrailersAreDropped":          TestRow13RequestTrailersAreDropped,
		"TestBodiesStreamBothWaysAtOnce":              TestBodiesStreamBothWaysAtOnce,
		"TestP15BodiesAreNotBuffered":                 TestP15BodiesAreNotBuffered,
		"TestResponsesThatCannotBePassedOn":           TestResponsesThatCannotBePassedOn,
		"TestChunkedWinsOverContentLength":            TestChunkedWinsOverContentLength,
		"TestP4D1ABodyThatIsCutShortIsNotEnded":       TestP4D1ABodyThatIsCutShortIsNotEnded,
		"TestBodilessResponses":                       TestBodilessResponses,
		"TestTrailersArrive":                          TestTrailersArrive,
		"TestEarlyHintsArriveAndOthersAreSwallowed":   TestEarlyHintsArriveAndOthersAreSwallowed,
		"TestStreamsAreFlushedAtOnce":                 TestStreamsAreFlushedAtOnce,
		"TestAnEarlyResponseDoesNotWaitForTheBody":    TestAnEarlyResponseDoesNotWaitForTheBody,
		"TestExpectContinue":                          TestExpectContinue,
		"TestUnsolicitedBytesPoisonNothing":           TestUnsolicitedBytesPoisonNothing,
		"TestRetryRules":                              TestRetryRules,
		"TestALargePutThatBrokeIsNotReplayed":         TestALargePutThatBrokeIsNotReplayed,
		"TestRefusalsOfPick":                          TestRefusalsOfPick,
		"TestRow82RetriesAreBudgeted":                 TestRow82RetriesAreBudgeted,
		"TestP9RefusedConnectionsCostNoBudget":        TestP9RefusedConnectionsCostNoBudget,
		"TestD6D7P5KeepAliveRace":                     TestD6D7P5KeepAliveRace,
		"TestP1AnInstanceDies":                        TestP1AnInstanceDies,
		"TestHedge":                                   TestHedge,
		"TestTimeouts":                                TestTimeouts,
		"TestEventStreamsOutliveTheRoutesTimeout":     TestEventStreamsOutliveTheRoutesTimeout,
		"TestD12ClientFaults":                         TestD12ClientFaults,
		"TestRow14ABodyThatDoesNotCome":               TestRow14ABodyThatDoesNotCome,
		"TestABodyTooLargeForThePluginIs413":          TestABodyTooLargeForThePluginIs413,
		"TestAClientThatLeavesEndsTheUpstreamAtOnce":  TestAClientThatLeavesEndsTheUpstreamAtOnce,
		"TestWebSocket":                               TestWebSocket,
		"TestRow9AFailedHandshakeLeavesNothingBehind": TestRow9AFailedHandshakeLeavesNothingBehind,
		"TestStickySessions":                          TestStickySessions,
	} {
		t.Run(name, test)
	}
}
