package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/admin"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
	"go.uber.org/goleak"
)

// wait is how long an event may take to come on a busy machine.
const wait = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(closing{m}) }

// closing ends what http.Get keeps open before leaks are looked for.
type closing struct{ *testing.M }

func (c closing) Run() int {
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return c.M.Run()
}

// site is a gateway in front of a real Consul and a real etcd.
type site struct {
	t       *testing.T
	consul  *testenv.Consul
	etcd    *testenv.Etcd
	gateway *testenv.Gateway
}

func newSite(t *testing.T, o testenv.GatewayOptions) *site {
	t.Helper()
	s := &site{t: t, consul: testenv.StartConsul(t), etcd: testenv.StartEtcd(t)}
	o.Consul, o.Etcd = s.consul.URL(), s.etcd.Endpoint
	s.gateway = testenv.StartGateway(t, o)
	return s
}

// service starts an instance that registers itself.
func (s *site) service(name, id string, args ...string) *testenv.Service {
	s.t.Helper()
	return testenv.StartService(s.t, name, append([]string{"-id", id, "-consul", s.consul.URL()}, args...)...)
}

// answer is one response, read to its end.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
	rig.Answer
	Code string `json:"code"`
}

// ask sends one request to the gateway. headers are "Name: value"; Host sets
// the host.
func (s *site) ask(method, path string, headers ...string) answer {
	s.t.Helper()
	a, err := s.try(method, path, headers...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (s *site) try(method, path string, headers ...string) (answer, error) {
	var a answer
	req, err := http.NewRequest(method, s.gateway.URL()+path, nil)
	if err != nil {
		return a, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	client := &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.Status, a.Header = resp.StatusCode, resp.Header
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		return a, err
	}
	_ = json.Unmarshal(a.Body, &a) // not every answer is JSON
	return a, nil
}

// eventually asks until the answer is as wanted.
func (s *site) eventually(what, path string, want func(answer) bool, headers ...string) answer {
	s.t.Helper()
	var last answer
	testenv.Eventually(s.t, wait, what, func() bool {
		a, err := s.try(http.MethodGet, path, headers...)
		if err == nil {
			last = a
		}
		return err == nil && want(a)
	})
	return last
}

// read gets a page of the admin API into v.
func (s *site) read(path string, v any) {
	s.t.Helper()
	resp, err := http.Get(s.gateway.AdminURL() + path)
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
}

// problems lists "KEY CODE SERVING".
func (s *site) problems() []string {
	s.t.Helper()
	var l struct {
		Items []struct{ Key, Code, Serving, Message string }
	}
	s.read("/api/v1/problems", &l)
	out := []string{}
	for _, p := range l.Items {
		out = append(out, p.Key+" "+p.Code+" "+p.Serving)
	}
	return out
}

func (s *site) status() admin.Status {
	s.t.Helper()
	var st admin.Status
	s.read("/api/v1/status", &st)
	return st
}

// sluice runs a command and returns its output and exit code.
func sluice(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Binary(t, "sluice"), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("sluice %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s: got %s, want %s", what, g, w)
	}
}
