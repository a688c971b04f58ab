package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// quiet keeps the cost of log lines out of the figures.
const quiet = "log:\n  access: false\n"

// stage is what changes are made on: a Consul, an etcd, a gateway that
// follows both, and two processes that serve.
type stage struct {
	p           *rig.Program
	consul      *testenv.Consul
	etcd        *testenv.Etcd
	gateway     *testenv.Gateway
	blue, green *testenv.Service
}

func newStage(p *rig.Program) *stage {
	s := newRegistries(p)
	s.start(s.consul.URL())
	return s
}

// newRegistries is a stage without its gateway.
func newRegistries(p *rig.Program) *stage {
	return &stage{
		p: p, consul: testenv.StartConsul(p), etcd: testenv.StartEtcd(p),
		blue:  testenv.StartService(p, "orders", "-id", "blue", "-consul", ""),
		green: testenv.StartService(p, "orders", "-id", "green", "-consul", ""),
	}
}

// start starts the gateway; consul is where it finds the agent.
func (s *stage) start(consul string) {
	s.gateway = testenv.StartGateway(s.p, testenv.GatewayOptions{Consul: consul, Etcd: s.etcd.Endpoint, Extra: quiet})
}

// check is how a registration of register is checked.
type check map[string]any

// byReport is a check whose state the agent is told; it never runs out here.
var byReport = check{"TTL": "1h", "Status": "passing"}

// register registers an instance with the agent; check may be nil.
func (s *stage) register(service, id, addr string, c check, tags ...string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		s.p.Fatalf("register %s: %v", id, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		s.p.Fatalf("register %s: %v", id, err)
	}
	body := map[string]any{"Name": service, "ID": id, "Address": host, "Port": number, "Tags": tags}
	if c != nil {
		body["Check"] = c
	}
	s.agent("/v1/agent/service/register", body)
}

func (s *stage) deregister(id string) { s.agent("/v1/agent/service/deregister/"+id, nil) }

// report tells the agent the state of the check of the instance id.
func (s *stage) report(id, state string) {
	s.agent("/v1/agent/check/update/service:"+id, map[string]any{"Status": state})
}

// agent puts body to the agent's API.
func (s *stage) agent(path string, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		s.p.Fatalf("encode the body of %s: %v", path, err)
	}
	req, err := http.NewRequest(http.MethodPut, s.consul.URL()+path, bytes.NewReader(encoded))
	if err != nil {
		s.p.Fatalf("put %s: %v", path, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.p.Fatalf("put %s: %v", path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.p.Fatalf("put %s: %d %s %v", path, resp.StatusCode, text, err)
	}
}

// awaitRoutes waits until the gateway's table has n routes.
func (s *stage) awaitRoutes(n int) {
	testenv.Eventually(s.p, time.Minute, fmt.Sprintf("the gateway has %d routes", n), func() bool {
		st, err := rig.Status(s.gateway)
		return err == nil && st.Routes == n
	})
}

// routesAtOnce is how many routes one transaction puts; etcd takes 128.
const routesAtOnce = 100

// putRoutes puts n routes and waits until the gateway, if it runs, has them.
func (s *stage) putRoutes(n int, document func(i int) string) {
	for first := 0; first < n; first += routesAtOnce {
		put := map[string]string{}
		for i := first; i < min(n, first+routesAtOnce); i++ {
			put[fmt.Sprintf("/sluice/routes/loaded-%d", i)] = document(i)
		}
		s.etcd.Apply(put)
	}
	if s.gateway != nil {
		s.awaitRoutes(n)
	}
}
