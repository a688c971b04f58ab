package testenv

import (
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConsulAnswersAgainAfterEachInterruption(t *testing.T) {
	c := StartConsul(t, ConsulConfig(`limits { http_max_conns_per_client = 300 }`))
	answers := func() bool {
		return httpReady(c.URL()+"/v1/agent/self", func(status int, _ string) error {
			if status != http.StatusOK {
				return errNoLeader
			}
			return nil
		}) == nil
	}
	Eventually(t, 10*time.Second, "an answer", answers)
	c.Kill()
	if answers() {
		t.Error("a killed agent answers")
	}
	c.Restart()
	Eventually(t, 10*time.Second, "an answer after a restart", answers)
	c.Freeze()
	// The signal takes effect a moment after it was sent.
	Eventually(t, 10*time.Second, "a frozen agent is silent", func() bool { return !answers() })
	c.Thaw()
	Eventually(t, 10*time.Second, "an answer after a thaw", answers)
	c.Stop()
	if c.Running() {
		t.Error("a stopped agent runs")
	}
}

func TestEtcdKeepsItsDataUnlessWiped(t *testing.T) {
	e := StartEtcd(t)
	first := e.Apply(map[string]string{"/a": "1", "/b": "2"})
	if second := e.Delete("/b"); second != first+1 {
		t.Errorf("revision after %d: got %d", first, second)
	}
	e.Compact()
	e.Kill()
	e.Restart()
	if got, ok := e.Get("/a"); got != "1" || !ok {
		t.Errorf("/a after a restart: %q, %v", got, ok)
	}
	e.RestartEmpty()
	if rev := e.Revision(); rev != 1 {
		t.Errorf("revision of an empty store: %d", rev)
	}
	e.RestartAsAnother()
	if _, ok := e.Get("/a"); ok {
		t.Error("another cluster holds the key")
	}
}

func TestEtcdAsksForAUserAndACertificate(t *testing.T) {
	e := StartEtcd(t, EtcdTLS(NewCA(t)))
	e.EnableAuth("secret")
	e.AddUser("gateway", "other", "/sluice/")
	e.Put("/sluice/a", "1")
	if got, _ := e.Get("/sluice/a"); got != "1" {
		t.Errorf("got %q", got)
	}
}

func TestEtcdClusterServesWithOneMemberDown(t *testing.T) {
	c := StartEtcdCluster(t, 3)
	c.Members[0].Kill()
	c.Members[1].Put("/a", "1")
	if got, _ := c.Members[2].Get("/a"); got != "1" {
		t.Errorf("got %q", got)
	}
}

func TestRedisAnswers(t *testing.T) {
	r := StartRedis(t)
	r.Kill()
	if redisReady(r.Addr) == nil {
		t.Error("a killed server answers")
	}
	r.Restart()
}

func TestPortsAreHandedOutOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		p := FreePort(t)
		if seen[p] {
			t.Fatalf("port %d twice", p)
		}
		seen[p] = true
	}
}

func TestProxyCutsAndStallsTheLine(t *testing.T) {
	r := StartRedis(t)
	p := StartProxy(t, r.Addr)
	if err := redisReady(p.Addr); err != nil {
		t.Fatalf("through the proxy: %v", err)
	}
	p.Cut()
	if redisReady(p.Addr) == nil {
		t.Error("a cut line answers")
	}
	p.Mend()
	p.Stall()
	if redisReady(p.Addr) == nil {
		t.Error("a stalled line answers")
	}
	p.Flow()
	if err := redisReady(p.Addr); err != nil {
		t.Errorf("after all: %v", err)
	}
}
