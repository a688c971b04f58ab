package main

import (
	"fmt"
	"regexp"
)

// step is one command of the page with what its answer must look like.
type step struct {
	// title opens a new paragraph of the page; "" goes on with the last.
	title string
	// command is run by sh in the repository's root.
	command string
	// want are regular expressions, (?m), that all match what it prints on
	// either stream; reject are such that none may match.
	want, reject []string
	// once: run a single time, for a second would not be the same. Others are
	// repeated until they match, as a person would: a change takes effect
	// some milliseconds after the command that made it returned.
	once bool
	// stays: the command runs on, in a terminal of its own.
	stays bool
}

// steps is the page, in order: each builds on those before it.
func (s *stack) steps() []step {
	gateway, admin := s.url(s.ports.gateway), s.url(s.ports.admin)
	get := func(path string) string { return "curl -s " + gateway + path }
	colours := func(n int) string {
		return fmt.Sprintf(`curl -s '%s/orders/[1-%d]' | grep -o '"colour":"[a-z]*"' | sort | uniq -c`, gateway, n)
	}
	statuses := func(n int) string {
		return fmt.Sprintf(`curl -s -o /dev/null -w '%%{http_code}\n' '%s/orders/[1-%d]' | sort | uniq -c`, gateway, n)
	}
	all := func(n int, what string) []string {
		return []string{fmt.Sprintf(`\A\s*%d %s\s*\z`, n, regexp.QuoteMeta(what))}
	}

	return []step{{
		title:   "users registered itself in Consul with the tag sluice.path=/users/*; that made its route.",
		command: get("/users/7"),
		want:    []string{`"service":"users"`, `"path":"/users/7"`},
	}, {
		title:   "orders has its route key in etcd, and an active key that says blue.",
		command: "curl -s '" + gateway + "/orders/1?q=a'", // quoted: some shells would look for files
		want:    []string{`"service":"orders"`, `"colour":"blue"`, `"query":\{"q":\["a"\]\}`, `"X-Request-Id"`},
	}, {
		title:   "What the gateway knows, and why it would do what it does.",
		command: "bin/sluice get routes",
		want:    []string{`/orders/\*`, `consul:users\b.*/users/\*`},
	}, {
		command: "bin/sluice get instances orders",
		want:    []string{`orders-blue-1`, `orders-blue-2`, `orders-green-1`, `orders-green-2`},
	}, {
		command: "bin/sluice explain GET " + gateway + "/orders/1",
		want:    []string{`/sluice/routes/orders`, `blue`},
	}, {
		title:   "Add a route: one put, no restart.",
		command: `bin/etcdctl put /sluice/routes/shop '{"path":"/shop/*","service":"orders","strip_prefix":"/shop"}'`,
		want:    []string{`\AOK\s*\z`},
		once:    true,
	}, {
		command: get("/shop/cart"),
		want:    []string{`"service":"orders"`, `"path":"/cart"`},
	}, {
		title:   "Break it with a misspelt field: the last good version serves on, and the fault is named.",
		command: `bin/etcdctl put /sluice/routes/shop '{"path":"/shop/*","servise":"orders"}'`,
		want:    []string{`\AOK\s*\z`},
		once:    true,
	}, {
		command: "bin/sluice get problems",
		want:    []string{`/sluice/routes/shop`, `servise`},
	}, {
		command: get("/shop/cart"),
		want:    []string{`"service":"orders"`, `"path":"/cart"`},
		once:    true,
	}, {
		title:   "Take it away again.",
		command: "bin/etcdctl del /sluice/routes/shop",
		want:    []string{`\A1\s*\z`},
		once:    true,
	}, {
		command: get("/shop/cart"),
		want:    []string{`"code":\s*"route_not_found"`, `"status":\s*404`},
	}, {
		title:   "Start a service of your own; it brings its route along. Ctrl-C there takes it away at once, its route 30 s later.",
		command: "bin/demo-service -name payments -tags 'sluice.path=/payments/*'",
		want:    []string{`demo-service payments payments-\d+ listening on 127\.0\.0\.1:\d+`},
		stays:   true,
	}, {
		command: get("/payments/1"),
		want:    []string{`"service":"payments"`, `"path":"/payments/1"`},
	}, {
		title:   "Flip orders to green with one key, or by the command that waits until every gateway has done it.",
		command: "bin/etcdctl put /sluice/active/orders green",
		want:    []string{`\AOK\s*\z`},
		once:    true,
	}, {
		command: colours(10),
		want:    all(10, `"colour":"green"`),
	}, {
		command: "bin/sluice switch orders blue --wait",
		want:    []string{`orders`, `blue`},
		once:    true,
	}, {
		command: colours(10),
		want:    all(10, `"colour":"blue"`),
		once:    true,
	}, {
		title:   "Let both serve, half of the requests each.",
		command: "bin/sluice switch orders blue=50,green=50 --wait",
		want:    []string{`orders`, `blue=50,green=50`},
		once:    true,
	}, {
		command: colours(200),
		want:    []string{`^\s*\d+ "colour":"blue"$`, `^\s*\d+ "colour":"green"$`},
		once:    true,
	}, {
		title:   "Flip while requests run: count the answers, not one is lost.",
		command: "(sleep 0.2; bin/sluice switch orders green --wait) >/dev/null & " + statuses(5000),
		want:    all(5000, "200"),
		once:    true,
	}, {
		command: colours(10),
		want:    all(10, `"colour":"green"`),
	}, {
		title:   "Kill one of the two green instances without a word; the next requests do not notice.",
		command: fmt.Sprintf("kill -9 %d", s.services["orders-green-1"].pid()),
		want:    []string{`\A\z`},
		once:    true,
	}, {
		command: statuses(50),
		want:    all(50, "200"),
		once:    true,
	}, {
		command: "bin/sluice get instances orders",
		want:    []string{`orders-green-2.*\bhealthy\b`},
		reject:  []string{`orders-green-1.*\bhealthy\b`},
	}, {
		title:   "Metrics, for Prometheus.",
		command: "curl -s " + admin + "/metrics | grep '^sluice_active_subset'",
		want:    []string{`^sluice_active_subset\{service="orders",subset="green"\} 100$`},
	}}
}
