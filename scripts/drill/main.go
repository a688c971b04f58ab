// Command drill breaks things under load and counts what its users would have
// noticed. Every drill runs real Consul, etcd, gateways and services, holds
// an open-loop load throughout, and passes only if no request failed and none
// got the wrong colour after a flip was applied, or passed that should not
// have. What has to be refused, because a route denies while Redis is away or a
// token is forged, is counted apart.
//
//	go run ./scripts/drill            # every drill
//	go run ./scripts/drill -run flip  # those whose name contains flip
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// drill is one way of breaking things.
type drill struct {
	name string
	what string
	run  func(*site) outcome
}

func drills() []drill {
	return []drill{
		{"flips", "100 blue/green flips", flips},
		{"rolling-restart", "a rolling restart of every instance, graceful", rollingRestart},
		{"instance-killed", "an instance killed with -9, GETs", instanceKilled},
		{"consul-outage", "Consul stopped for -outage and back, its state lost", consulOutage},
		{"etcd-outage", "etcd stopped for -outage and back", etcdOutage},
		{"cold-start", "Consul and etcd stopped, the gateway restarted from state_dir", coldStart},
		{"redis-outage", "Redis frozen for -outage and back, then killed and back, a route of each on_store_error", redisOutage},
		{"redis-failover", "the master of Redis killed, then frozen, a sentinel promotes its replica", redisFailover},
		{"jwks-outage", "an issuer's keys down, late, trickling for -outage each, rotating, asked for in a flood", jwksOutage},
		{"compaction", "etcd compacted while the watch is cut", compaction},
		{"bad-documents", "1,000 bad and half-written documents among good ones", badDocuments},
		{"takeover", "gateway SIGTERM with a second gateway taking over", takeover},
	}
}

// outcome is what a drill came to.
type outcome struct {
	sent, failed, wrong int
	// effect is how long changes took to be obeyed, where the drill makes any.
	effect []time.Duration
	// note says what effect measures; firstFailure shows one.
	note, firstFailure string
	// broken says what else went wrong; "" for nothing.
	broken string
}

func (o outcome) passed() bool { return o.failed == 0 && o.wrong == 0 && o.broken == "" && o.sent > 0 }

func main() {
	only := flag.String("run", "", "run only drills whose `name` contains this")
	rate := flag.Int("rate", 500, "requests per second")
	outage := flag.Duration("outage", 30*time.Second, "how long a registry stays away")
	flag.Parse()
	os.Exit(runAll(*only, *rate, *outage))
}

func runAll(only string, rate int, outage time.Duration) int {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "DRILL\tSENT\tFAILED\tWRONG\tTIME TO EFFECT (median, max)\tRESULT")
	passed, failed := 0, 0
	for _, d := range drills() {
		if !strings.Contains(d.name, only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %s …\n", d.name, d.what)
		var o outcome
		err := rig.Run(func(p *rig.Program) {
			s := newSite(p, rate, outage)
			o = d.run(s)
			if n := s.critical(); n > 0 && !o.passed() {
				o.broken += fmt.Sprintf("Consul found orders critical %d times ", n)
			}
		})
		if err != nil {
			o.broken = err.Error()
		}
		result := "PASS"
		if !o.passed() {
			result = "FAIL " + o.broken + " " + o.firstFailure
			failed++
		} else {
			passed++
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", d.name, result)
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\n", d.name, o.sent, o.failed, o.wrong, o.effectText(), result)
	}
	_ = w.Flush()
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return 1
	}
	return 0
}
