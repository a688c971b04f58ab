package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// partsCost runs the benchmarks of single parts of a request's walk. They
// have no target.
func partsCost(p *rig.Program, _ settings) []figure {
	engine := result(p, goBench(p, "./middleware", "EngineForward$"), "EngineForward")
	small := goBench(p, "./proxy", "ForwardSmall$")
	pipeline := goBench(p, "./middleware", "Pipeline")
	pick := goBench(p, "./routing/balance", "Pick$/(round_robin|least_request|p2c)$/^10$/plain")
	figures := []figure{
		engine.plain("engine around a forwarder that costs nothing"),
		result(p, pipeline, "Pipeline/plain").plain("engine, match, pick and engine fast, instance in memory"),
		result(p, pipeline, "Pipeline/four_plugins").plain("the same with four plugins"),
		result(p, small, "ForwardSmall/std").plain("forwarder with client and instance, 1 KiB, engine std"),
		result(p, small, "ForwardSmall/fast").plain("the same, engine fast"),
	}
	for _, kind := range []string{"round_robin", "least_request", "p2c"} {
		figures = append(figures, result(p, pick, "Pick/"+kind+"/10/plain").plain("pick of 10, "+kind))
	}
	return figures
}

// absentPlugins is how many the chain benchmark has that its route does not
// use.
const absentPlugins = 20

// policyCost runs the benchmarks of the plugins that decide who may pass and
// how much.
func policyCost(p *rig.Program, _ settings) []figure {
	absent := absentCost(p)
	all := goBench(p, "./middleware", "JWTVerifiedBefore$|EngineJWT|RateLimitTwoWindows|Access|RateDecision|LimitsOff|IPRateLimit|MaxInFlight|Session")
	figures := []figure{
		{measure: "each plugin that a route does not use", value: fmt.Sprintf("%.1f ns", absent/absentPlugins),
			target: "≤ 5 ns", met: absent/absentPlugins <= 5},
		{measure: fmt.Sprintf("%d of them", absentPlugins), value: fmt.Sprintf("%.0f ns", absent), target: "≤ 150 ns", met: absent <= 150},
		result(p, all, "JWTVerifiedBefore").within("a token that was verified before", 2*time.Microsecond),
		result(p, all, "RateDecision").within("a rate limit's key and decision", 300*time.Nanosecond),
	}
	for _, cores := range []string{"1", "2"} {
		take := goBench(p, "./middleware/limit", "LocalTake/token_bucket", "-cpu", cores)
		figures = append(figures, result(p, take, "LocalTake/token_bucket").within("decisions in parallel, cores: "+cores, 300*time.Nanosecond))
	}
	shared := goBench(p, "./middleware/limit", "SharedTake$")
	for _, name := range slices.Sorted(maps.Keys(shared)) {
		figures = append(figures, shared[name].plain("one round trip to Redis, "+name))
	}
	together := goBench(p, "./middleware/limit", "SharedTakeTogether")
	for _, callers := range []string{"1", "4", "16", "64", "256"} {
		r := result(p, together, "SharedTakeTogether/"+callers)
		figures = append(figures, figure{measure: "decisions in Redis, callers at one time: " + callers,
			value: fmt.Sprintf("%.1f µs of the gateway's processor, %.0f/s, %s", r["cpu-µs/op"], r["decisions/s"], r.allocs())})
	}
	for _, part := range []struct{ name, measure string }{
		{"Access/off", "the walk without a plugin"}, {"Access/api_key", "… with api_key"}, {"Access/api_key_and_acl", "… with api_key and acl"},
		{"Access/ip_filter", "… with ip_filter"}, {"Access/introspection", "… with introspection, a token asked about before"},
		{"EngineJWT/on", "… with jwt, a token verified before"}, {"RateLimitTwoWindows", "… with rate_limit, two windows"},
		{"Access/basic_auth", "… with basic_auth, remembered"}, {"Access/bot_guard", "… with bot_guard"}, {"Access/body_limit", "… with body_limit"},
		{"Access/mtls", "… with mtls"}, {"Access/forward_auth", "… with forward_auth, over loopback"},
		{"SessionInMemory", "… with session, in memory"}, {"SessionInRedis", "… with session, in Redis"},
		{"IPRateLimit", "… with ip_rate_limit"}, {"MaxInFlight", "… with max_in_flight"},
	} {
		figures = append(figures, result(p, all, part.name).plain(part.measure))
	}
	return figures
}

// absentCost is what absentPlugins add to a walk, in ns. That is a small
// difference of two large figures, which drift with the machine: they are
// taken in turns, and the median of the differences counts.
func absentCost(p *rig.Program) float64 {
	var differences []float64
	for range 15 {
		pair := goBench(p, "./middleware", "EngineForward$|ChainAbsentPlugins", "-benchtime", "0.4s")
		differences = append(differences, result(p, pair, "ChainAbsentPlugins")["ns/op"]-result(p, pair, "EngineForward")["ns/op"])
	}
	slices.Sort(differences)
	return differences[len(differences)/2]
}

// plain is a figure without a target.
func (r goResult) plain(measure string) figure {
	return figure{measure: measure, value: fmt.Sprintf("%.0f ns, %s", r["ns/op"], r.allocs())}
}

// within is a figure that is to take no longer than target.
func (r goResult) within(measure string, target time.Duration) figure {
	f := r.plain(measure)
	f.target, f.met = "≤ "+target.String(), r.took() <= target
	return f
}
