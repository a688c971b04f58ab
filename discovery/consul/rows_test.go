package consul

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// The tests in this file are the rows of the Consul drills that concern the
// source: what each kind of failure may and may not change.

// brief shortens what takes half a minute and more in production.
func brief(s *Source) {
	s.timing.waitLow, s.timing.waitHigh = 500*time.Millisecond, time.Second
	s.timing.slack, s.timing.read = 500*time.Millisecond, time.Second
}

func empties(service string) func(discovery.State) bool {
	return func(st discovery.State) bool {
		found, known := st.Instances[ref(service)]
		return known && len(found) == 0
	}
}

func TestC1AgentDown(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	a.register("n1", "orders-1", "orders", "passing", "sluice.path=/orders/*")
	_, rec := start(t, config(agent.URL()), want("orders"))
	rec.await(t, "orders", "n1/orders-1")
	agent.Kill()
	testenv.Eventually(t, patience, "the source to be down", func() bool { up, _ := rec.up(); return !up })
	agent.Restart()
	back := time.Now()
	a.register("n1", "orders-2", "orders", "passing", "sluice.path=/orders/*")
	rec.await(t, "orders", "n1/orders-2")
	t.Logf("the new registration was seen %s after the agent was back", time.Since(back).Round(time.Millisecond))
	rec.never(t, "emptied the service during the outage", empties("orders"))
	rec.never(t, "dropped the announcement during the outage", func(st discovery.State) bool {
		return st.Announced["orders"] == nil
	})
	if up, changes := rec.up(); !up || changes != 3 {
		t.Errorf("up %v after %d changes, want up, down, up", up, changes)
	}
}

func TestC2FrozenAgent(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	a.register("n1", "orders-1", "orders", "passing")
	_, rec := start(t, config(agent.URL()), brief, want("orders"))
	rec.await(t, "orders", "n1/orders-1")
	agent.Freeze()
	testenv.Eventually(t, patience, "the deadline to find the agent frozen", func() bool { up, _ := rec.up(); return !up })
	agent.Thaw()
	a.register("n1", "orders-2", "orders", "passing")
	thawed := time.Now()
	rec.await(t, "orders", "n1/orders-1", "n1/orders-2")
	t.Logf("the new registration was seen %s after it was made", time.Since(thawed).Round(time.Millisecond))
	rec.never(t, "emptied the service", empties("orders"))
	testenv.Eventually(t, patience, "the source to be up", func() bool { up, _ := rec.up(); return up })
}

func TestC3RestartWithLostState(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	for i := range 30 { // so that the index of the next life is lower
		a.register("n1", fmt.Sprintf("filler-%d", i), "filler", "passing")
	}
	a.register("n1", "orders-1", "orders", "passing")
	a.register("n1", "users-1", "users", "passing", "sluice.path=/users/*")
	const hold = 4 * time.Second
	src, rec := start(t, config(agent.URL()), brief, want("orders", "gone"), func(s *Source) { s.timing.hold = hold })
	rec.await(t, "orders", "n1/orders-1")
	rec.await(t, "users", "n1/users-1")
	rec.await(t, "gone")
	before := src.Stats().Queries
	agent.Kill()
	restarted := time.Now()
	agent.Restart()
	testenv.Eventually(t, patience, "answers of the new life", func() bool {
		up, changes := rec.up()
		return up && changes == 3 && src.Stats().Queries > before+10
	})

	t.Run("the last known instances stay while the hold lasts", func(t *testing.T) {
		if got := rec.ids("orders"); !slices.Equal(got, []string{"n1/orders-1"}) {
			t.Errorf("orders is %q", got)
		}
		if got := rec.last().Announced["users"]; got == nil {
			t.Error("users is not announced any more")
		}
	})
	t.Run("D9 a registration of the new life applies at once, though its index is lower", func(t *testing.T) {
		a.register("n2", "orders-2", "orders", "passing")
		rec.await(t, "orders", "n2/orders-2")
		rec.never(t, "emptied the service", empties("orders"))
	})
	t.Run("a service that registers late is kept, though the index has passed its own", func(t *testing.T) {
		for i := range 80 {
			a.register("n3", fmt.Sprintf("other-%d", i), "other", "passing")
		}
		if got := rec.ids("users"); !slices.Equal(got, []string{"n1/users-1"}) {
			t.Errorf("users is %q", got)
		}
	})
	t.Run("what stays empty is empty when the hold ends", func(t *testing.T) {
		testenv.Eventually(t, patience, "users to go", func() bool { return rec.last().Announced["users"] == nil })
		if took := time.Since(restarted); took < hold {
			t.Errorf("users went after %s, before the hold of %s ended", took, hold)
		}
	})
	t.Run("after that an empty answer empties the service again", func(t *testing.T) {
		a.deregister("n2", "orders-2")
		rec.await(t, "orders")
	})
}

// The hold is for what the agent has forgotten, not for what it came to know
// and then lost since.
func TestC3AnInstanceOfTheNewLifeLeavesAtOnce(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	for i := range 30 { // so that the index of the next life is lower
		a.register("n1", fmt.Sprintf("filler-%d", i), "filler", "passing")
	}
	a.register("n1", "orders-1", "orders", "passing")
	a.register("n1", "users-1", "users", "passing")
	src, rec := start(t, config(agent.URL()), want("orders", "users"), func(s *Source) { s.timing.hold = time.Hour })
	rec.await(t, "orders", "n1/orders-1")
	rec.await(t, "users", "n1/users-1")
	agent.Kill()
	agent.Restart()
	testenv.Eventually(t, patience, "the lost state to be noticed", func() bool {
		src.mu.Lock()
		defer src.mu.Unlock()
		return !src.fell[""].IsZero()
	})
	a.register("n2", "orders-2", "orders", "passing")
	rec.await(t, "orders", "n2/orders-2")
	a.deregister("n2", "orders-2")
	rec.await(t, "orders")
	if got := rec.ids("users"); !slices.Equal(got, []string{"n1/users-1"}) {
		t.Errorf("users is %q", got)
	}
}

// A gateway that starts from its stored state when the agent has lost its own
// must not take the agent's word for it that nobody is there.
func TestC3AColdStartHoldsWhatWasStored(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	for i := range 30 { // so that the index of the next life is lower
		a.register("n1", fmt.Sprintf("filler-%d", i), "filler", "passing")
	}
	a.register("n1", "orders-1", "orders", "passing")
	a.register("n1", "users-1", "users", "passing", "sluice.path=/users/*")
	_, before := start(t, config(agent.URL()), want("orders"))
	before.await(t, "orders", "n1/orders-1")
	before.await(t, "users", "n1/users-1")
	stored := before.last()

	t.Run("what left while nobody looked is gone", func(t *testing.T) {
		a.deregister("n1", "orders-1")
		_, rec := start(t, config(agent.URL()), func(s *Source) { s.Remember(stored) }, want("orders"))
		rec.await(t, "orders")
		rec.never(t, "had the instance that left", func(st discovery.State) bool { return len(st.Instances[ref("orders")]) > 0 })
	})
	t.Run("what the agent has forgotten stays", func(t *testing.T) {
		agent.Kill()
		agent.Restart()
		_, rec := start(t, config(agent.URL()), func(s *Source) { s.timing.hold = time.Hour; s.Remember(stored) }, want("orders"))
		rec.await(t, "orders", "n1/orders-1")
		rec.await(t, "users", "n1/users-1")
		if rec.last().Announced["users"] == nil {
			t.Error("users is not announced any more")
		}
		a.register("n2", "orders-2", "orders", "passing")
		rec.await(t, "orders", "n2/orders-2")
		rec.never(t, "emptied the service", empties("orders"))
	})
}

func TestC4OneServiceFails(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	sh := newShim(t, agent)
	a.register("n1", "good-1", "good", "passing")
	a.register("n1", "bad-1", "bad", "passing")
	_, rec := start(t, config(sh.URL), brief, want("good", "bad"))
	rec.await(t, "good", "n1/good-1")
	rec.await(t, "bad", "n1/bad-1")
	for _, fault := range []struct {
		name   string
		answer func(http.ResponseWriter)
	}{
		{"500", func(w http.ResponseWriter) { http.Error(w, "rpc error", http.StatusInternalServerError) }},
		{"403", func(w http.ResponseWriter) { http.Error(w, "Permission denied", http.StatusForbidden) }},
		{"429", func(w http.ResponseWriter) {
			http.Error(w, "too many concurrent connections", http.StatusTooManyRequests)
		}},
		{"filtered by ACLs", func(w http.ResponseWriter) {
			for k, v := range map[string]string{
				"X-Consul-Index": "5000", "X-Consul-LastContact": "0", "X-Consul-KnownLeader": "true",
				"X-Consul-Results-Filtered-By-ACLs": "true",
			} {
				w.Header().Set(k, v)
			}
			fmt.Fprint(w, "[]")
		}},
		{"an answer that is not Consul's", func(w http.ResponseWriter) { fmt.Fprint(w, "[]") }},
		{"half an answer", func(w http.ResponseWriter) { fmt.Fprint(w, `[{"Node":`) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			const path = "/v1/health/service/bad"
			asked := sh.count(path)
			sh.inject(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != path {
					return false
				}
				fault.answer(w)
				return true
			})
			testenv.Eventually(t, patience, "the failing query to be tried again", func() bool { return sh.count(path) > asked+2 })
			a.register("n1", "good-2", "good", "passing")
			rec.await(t, "good", "n1/good-1", "n1/good-2")
			rec.await(t, "bad", "n1/bad-1")
			a.deregister("n1", "good-2")
			rec.await(t, "good", "n1/good-1")
			sh.inject(nil)
			a.register("n1", "bad-2", "bad", "passing")
			rec.await(t, "bad", "n1/bad-1", "n1/bad-2")
			a.deregister("n1", "bad-2")
			rec.await(t, "bad", "n1/bad-1")
		})
	}
	rec.never(t, "emptied the failing service", empties("bad"))
}

func TestC5TooManyConnections(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	sh := newShim(t, agent)
	a.register("n1", "orders-1", "orders", "passing")
	src, rec := start(t, config(sh.URL), brief, want("orders"))
	rec.await(t, "orders", "n1/orders-1")
	sh.inject(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "too many concurrent connections", http.StatusTooManyRequests)
		return true
	})
	testenv.Eventually(t, patience, "the source to be down once everything is refused", func() bool { up, _ := rec.up(); return !up })
	before, from := src.Stats().Queries, time.Now()
	testenv.Eventually(t, patience, "ten retries", func() bool { return src.Stats().Queries >= before+10 })
	// Two watches, each after at least a tenth of its step.
	if took := time.Since(from); took < time.Second/2 {
		t.Errorf("ten retries within %s: a loop", took)
	}
	sh.inject(nil)
	a.register("n1", "orders-2", "orders", "passing")
	rec.await(t, "orders", "n1/orders-1", "n1/orders-2")
	rec.never(t, "emptied the service", empties("orders"))
}

func TestC6NoLeader(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	sh := newShim(t, agent)
	a.register("n1", "orders-1", "orders", "passing", "sluice.path=/orders/*")
	_, rec := start(t, config(sh.URL), brief)
	rec.await(t, "orders", "n1/orders-1")
	sh.inject(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
		return true
	})
	testenv.Eventually(t, patience, "the source to be down", func() bool { up, _ := rec.up(); return !up })
	reports := len(rec.all())
	sh.inject(nil)
	testenv.Eventually(t, patience, "the source to be up", func() bool { up, _ := rec.up(); return up })
	if got := len(rec.all()); got != reports {
		t.Errorf("%d reports, though nothing changed", got-reports)
	}
	rec.await(t, "orders", "n1/orders-1")
}

func TestC8FlappingCheck(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	a.register("n1", "orders-1", "orders", "passing")
	src, rec := start(t, config(agent.URL()), want("orders"))
	rec.await(t, "orders", "n1/orders-1")
	before, from := src.Stats().Queries, time.Now()
	for range 150 {
		a.register("n1", "orders-1", "orders", "critical")
		a.register("n1", "orders-1", "orders", "passing")
	}
	asked, took := src.Stats().Queries-before, time.Since(from)
	rec.await(t, "orders", "n1/orders-1")
	if most := wakeBurst + uint64(took/wakeEvery) + 10; asked > most {
		t.Errorf("300 flips in %s made %d queries, the bucket allows %d", took, asked, most)
	}
}

func TestC9Latency(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	a.register("n1", "orders-1", "orders", "passing")
	_, rec := start(t, config(agent.URL()), want("orders"))
	rec.await(t, "orders", "n1/orders-1")
	flip := func(status string, ids ...string) time.Duration {
		a.register("n1", "orders-1", "orders", status)
		from := time.Now()
		rec.await(t, "orders", ids...)
		return time.Since(from)
	}
	var took []time.Duration
	for range 50 {
		took = append(took, flip("critical"), flip("passing", "n1/orders-1"))
	}
	slices.Sort(took)
	t.Logf("check flip to report: median %s, p99 %s", took[50], took[98])
}

func TestC10LastInstanceLeaves(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	a.register("n1", "orders-1", "orders", "passing", "sluice.path=/orders/*")
	_, rec := start(t, config(agent.URL()))
	rec.await(t, "orders", "n1/orders-1")
	a.register("n1", "orders-1", "orders", "critical", "sluice.path=/orders/*")
	rec.await(t, "orders")
	if rec.last().Announced["orders"] == nil {
		t.Error("the announcement, and with it the route, went with the last passing instance")
	}
}

func TestC7Token(t *testing.T) {
	const root = "11111111-1111-1111-1111-111111111111"
	agent := testenv.StartConsul(t, testenv.ConsulConfig(`acl {
  enabled = true
  default_policy = "deny"
  tokens { initial_management = "`+root+`" }
}`))
	a := newAdmin(t, agent, root)
	testenv.Eventually(t, patience, "the management token to work", func() bool {
		_, _, err := a.ACL().TokenReadSelf(nil)
		return err == nil
	})
	policy := func(name, rules string) *api.ACLPolicy {
		p, _, err := a.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	wide := policy("wide", `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)
	token := func(policy string) *api.ACLToken {
		made, _, err := a.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: policy}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	first := token("wide")
	file := t.TempDir() + "/token"
	write(t, file, first.SecretID)
	a.register("n1", "orders-1", "orders", "passing", "sluice.path=/orders/*")
	a.register("n1", "users-1", "users", "passing")
	cfg := config(agent.URL())
	cfg.TokenFile = file
	_, rec := start(t, cfg, brief, want("users"))
	rec.await(t, "orders", "n1/orders-1")
	rec.await(t, "users", "n1/users-1")
	down := func() bool { up, _ := rec.up(); return !up }
	up := func() bool { return !down() }

	t.Run("a narrowed policy changes nothing", func(t *testing.T) {
		wide.Rules = `service "nothing" { policy = "read" }`
		if _, _, err := a.ACL().PolicyUpdate(wide, nil); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, patience, "the source to be down", down)
	})
	t.Run("a wide one mends it", func(t *testing.T) {
		wide.Rules = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
		if _, _, err := a.ACL().PolicyUpdate(wide, nil); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, patience, "the source to be up", up)
	})
	t.Run("a deleted token changes nothing", func(t *testing.T) {
		if _, err := a.ACL().TokenDelete(first.AccessorID, nil); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, patience, "the source to be down", down)
	})
	t.Run("a new token in the file is taken up", func(t *testing.T) {
		write(t, file, token("wide").SecretID)
		testenv.Eventually(t, patience, "the source to be up", up)
		a.register("n1", "users-2", "users", "passing")
		rec.await(t, "users", "n1/users-1", "n1/users-2")
	})
	rec.never(t, "emptied a service", func(st discovery.State) bool {
		return empties("users")(st) || empties("orders")(st) || st.Announced["orders"] == nil
	})
}

func TestC11Herd(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	sh := newShim(t, agent)
	a.register("n1", "orders-1", "orders", "passing")
	var recs []*recorder
	for range 20 {
		_, rec := start(t, config(sh.URL), want("orders"))
		recs = append(recs, rec)
	}
	for _, rec := range recs {
		rec.await(t, "orders", "n1/orders-1")
	}
	agent.Kill()
	from := time.Now()
	testenv.Eventually(t, patience, "many retries of every gateway", func() bool {
		return len(sh.since(from.Add(2*time.Second))) > 150
	})
	// After two seconds all retries are at the full step: in no tenth of the
	// time may more than a third of all of them arrive.
	late := sh.since(from.Add(2 * time.Second))
	span := late[len(late)-1].Sub(late[0])
	buckets := make([]int, 10)
	for _, at := range late {
		buckets[min(int(at.Sub(late[0])*10/span), 9)]++
	}
	if most := slices.Max(buckets); most*3 > len(late) {
		t.Errorf("retries come in a herd: %v within %s", buckets, span)
	}
	agent.Restart()
	a.register("n1", "orders-1", "orders", "passing")
	for _, rec := range recs {
		rec.await(t, "orders", "n1/orders-1")
	}
}

func TestTheTokenIsNeverPrinted(t *testing.T) {
	c := Default()
	c.Token = "canary"
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{string(data), fmt.Sprint(c), fmt.Sprintf("%+v %#v %s", c, c, &c)} {
		if strings.Contains(printed, "canary") {
			t.Errorf("the token stands in %s", printed)
		}
	}
}
