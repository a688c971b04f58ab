package main

import (
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

func TestAnExplanationShowsThePathThatWasRefusedAndTheGatewaysOwnAnswer(t *testing.T) {
	for sent, want := range map[string]string{
		"/orders/%zz?q=1":             "request  GET /orders/%zz\n",
		"http://shop.test/orders/%zz": "request  GET shop.test/orders/%zz\n",
		"http://shop.test?q":          "request  GET shop.test\n",
	} {
		e := routing.Explanation{Method: "GET", Outcome: routing.ExplainRefused, Refusal: "no"}
		if strings.Contains(sent, "shop.test") {
			e.Host = "shop.test"
		}
		var out strings.Builder
		if err := printExplanation(&out, e, sent); err != nil || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s: %v\n%s", sent, err, out.String())
		}
	}
	var out strings.Builder
	e := routing.Explanation{Method: "GET", NormalisedPath: "/orders", Outcome: routing.ExplainMatched,
		Answer: &routing.ExplainedAnswer{Status: 503, Code: routing.CodeNoHealthyInstance, Detail: "none passes"}}
	if err := printExplanation(&out, e, "/orders"); err != nil || !strings.Contains(out.String(), "answer   503 no_healthy_instance: none passes\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
