package consul

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestSource(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")

	t.Run("reports a wanted service and every change to it", func(t *testing.T) {
		a.register("n1", "orders-1", "orders", "passing", "green", "blue")
		src, rec := start(t, config(agent.URL()), want("orders"))
		rec.await(t, "orders", "n1/orders-1")
		got := rec.last().Instances[ref("orders")]
		entries, _, err := a.Health().Service("orders", "", true, nil)
		if err != nil {
			t.Fatal(err)
		}
		if wanted := instances(entries); !sameInstances(got, wanted) || got[0].Registered == 0 || got[0].Weight != 1 {
			t.Errorf("got %+v, want %+v with a registration and weight 1", got, wanted)
		}
		a.register("n1", "orders-2", "orders", "critical")
		a.register("n1", "orders-3", "orders", "passing")
		rec.await(t, "orders", "n1/orders-1", "n1/orders-3")
		a.register("n1", "orders-2", "orders", "warning")
		a.register("n1", "orders-2", "orders", "passing")
		rec.await(t, "orders", "n1/orders-1", "n1/orders-2", "n1/orders-3")
		a.nodeCheck("n1", "critical")
		rec.await(t, "orders")
		a.nodeCheck("n1", "passing")
		rec.await(t, "orders", "n1/orders-1", "n1/orders-2", "n1/orders-3")
		for _, id := range []string{"orders-1", "orders-2", "orders-3"} {
			a.deregister("n1", id)
		}
		rec.await(t, "orders")
		if !src.Synced() {
			t.Error("not synced after an answer for everything")
		}
		if up, _ := rec.up(); !up {
			t.Error("no contact after good answers")
		}
	})

	t.Run("starts and stops watches with what is wanted", func(t *testing.T) {
		a.register("n1", "a-1", "a", "passing")
		a.register("n1", "b-1", "b", "passing")
		src, rec := start(t, config(agent.URL()), want("a"))
		rec.await(t, "a", "n1/a-1")
		before := rec.last().Instances[ref("a")]
		src.Want([]discovery.ServiceRef{ref("a"), ref("b")})
		awaitSettled(t, src, ref("a"), ref("b"))
		rec.await(t, "b", "n1/b-1")
		if after := rec.last().Instances[ref("a")]; &after[0] != &before[0] {
			t.Error("a did not change, but its instances are another slice")
		}
		src.Want([]discovery.ServiceRef{ref("b")})
		rec.await(t, "a", "?")
		if len(before) != 1 || before[0].ID != "n1/a-1" {
			t.Errorf("what was reported changed later: %+v", before)
		}
		if st := src.Stats(); st.Direct != 1 {
			t.Errorf("%d direct watches for one service", st.Direct)
		}
	})

	t.Run("a service that does not exist is known to have no instance", func(t *testing.T) {
		_, rec := start(t, config(agent.URL()), want("nobody"))
		rec.await(t, "nobody")
	})

	t.Run("a datacenter that does not exist is settled, not known, and does not take the source down", func(t *testing.T) {
		a.register("n1", "near-1", "near", "passing")
		far := discovery.ServiceRef{Name: "near", Datacenter: "nowhere"}
		src, rec := start(t, config(agent.URL()), func(s *Source) { s.Want([]discovery.ServiceRef{ref("near"), far}) })
		awaitSettled(t, src, far)
		rec.await(t, "near", "n1/near-1")
		if _, known := rec.last().Instances[far]; known {
			t.Error("a failed query is reported as an answer")
		}
		if up, changes := rec.up(); !up || changes != 1 {
			t.Errorf("up %v after %d changes, want up from the start", up, changes)
		}
	})

	t.Run("follows services that announce themselves", func(t *testing.T) {
		_, rec := start(t, config(agent.URL()))
		a.register("n1", "users-1", "users", "passing", "sluice.path=/users/*", "blue")
		rec.await(t, "users", "n1/users-1")
		a.register("n1", "users-2", "users", "critical", "sluice.path=/v2/users/*", "sluice.path=/users/*")
		wanted := []string{"sluice.path=/users/*", "sluice.path=/v2/users/*"}
		testenv.Eventually(t, patience, "the union of the tags", func() bool {
			return slices.Equal(rec.last().Announced["users"], wanted)
		})
		a.deregister("n1", "users-1")
		a.deregister("n1", "users-2")
		testenv.Eventually(t, patience, "users to go", func() bool {
			st := rec.last()
			_, known := st.Instances[ref("users")]
			return st.Announced["users"] == nil && !known
		})
	})

	t.Run("announces nothing when told not to", func(t *testing.T) {
		a.register("n1", "users-1", "users", "passing", "sluice.path=/users/*")
		cfg := config(agent.URL())
		cfg.SelfRegisteredRoutes = false
		_, rec := start(t, cfg, want("a"))
		rec.await(t, "a", "n1/a-1")
		if st := rec.last(); st.Announced != nil || len(st.Instances) != 1 {
			t.Errorf("got %+v", st)
		}
	})

	t.Run("with nothing to follow it reports at once", func(t *testing.T) {
		cfg := config(agent.URL())
		cfg.SelfRegisteredRoutes = false
		_, rec := start(t, cfg)
		testenv.Eventually(t, patience, "a report", func() bool { return len(rec.all()) == 1 })
	})

	t.Run("the first report is whole", func(t *testing.T) {
		names := make([]string, 100)
		for i := range names {
			names[i] = fmt.Sprintf("whole-%d", i)
		}
		_, rec := start(t, config(agent.URL()), want(names...))
		testenv.Eventually(t, patience, "a report", func() bool { return len(rec.all()) > 0 })
		for _, name := range names {
			if _, known := rec.all()[0].Instances[ref(name)]; !known {
				t.Fatalf("%s is missing in the first report", name)
			}
		}
	})
}

func awaitSettled(t *testing.T, s *Source, refs ...discovery.ServiceRef) {
	t.Helper()
	select {
	case <-s.Settled(refs):
	case <-time.After(patience):
		t.Fatalf("%v not settled", refs)
	}
}

func TestRegistrar(t *testing.T) {
	agent := testenv.StartConsul(t)
	a := newAdmin(t, agent, "")
	cfg := RegistrationConfig{ID: "gw/1", Address: "10.0.0.7", Port: 8080, CheckURL: agent.URL() + "/v1/status/leader", Tags: []string{"edge"}}
	// What a former life left under the same ID is replaced.
	if err := a.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "gw/1", Name: "sluice", Port: 1}); err != nil {
		t.Fatal(err)
	}
	reg, err := NewRegistrar(config(agent.URL()), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	defer cancel()
	registered := func() bool {
		list, err := a.Agent().Services()
		if err != nil || list["gw/1"] == nil {
			return false
		}
		got := list["gw/1"]
		return got.Service == "sluice" && got.Port == 8080 && got.Address == "10.0.0.7" && slices.Equal(got.Tags, []string{"edge"})
	}
	testenv.Eventually(t, patience, "the gateway in consul", registered)
	testenv.Eventually(t, patience, "its check to pass", func() bool {
		found, _, err := a.Health().Service("sluice", "", true, nil)
		return err == nil && len(found) == 1
	})
	if err := a.Agent().ServiceDeregister("gw/1"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, patience, "the gateway back after somebody removed it", registered)
	agent.Kill()
	agent.Restart()
	testenv.Eventually(t, patience, "the gateway back after a restart with lost state", registered)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run returned %v", err)
	}
	if registered() {
		t.Error("still registered after the end")
	}
}
