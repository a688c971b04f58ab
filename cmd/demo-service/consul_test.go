package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// running is a service under test, in this process.
type running struct {
	addr string
	stop context.CancelFunc
	done chan error
}

// start runs the service until the test ends or stop is called.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	r := &running{stop: cancel, done: make(chan error, 1)}
	go func() {
		err := run(ctx, args, func(string) string { return "" }, in, t.Output())
		in.CloseWithError(io.EOF)
		r.done <- err
		close(r.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("read the ready line: %v", err)
	}
	fields := strings.Fields(line)
	r.addr = fields[len(fields)-1]
	return r
}

// get asks for url and decodes the JSON answer into out unless it is nil.
func get(t *testing.T, url string, out any) (status int) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	res, err := client.Get(url)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if out != nil && res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(out); err != nil {
			t.Fatalf("decode the answer of %s: %v", url, err)
		}
	}
	return res.StatusCode
}

// checks gives the states of the service's own checks.
func checks(t *testing.T, c *testenv.Consul, service string) []string {
	t.Helper()
	var entries []struct{ Status string }
	get(t, c.URL()+"/v1/health/checks/"+service, &entries)
	var out []string
	for _, e := range entries {
		out = append(out, e.Status)
	}
	return out
}

func passing(t *testing.T, c *testenv.Consul, service string) bool {
	return slices.Equal(checks(t, c, service), []string{"passing"})
}

func TestServiceStandsInConsulAsTold(t *testing.T) {
	consul := testenv.StartConsul(t)
	s := start(t, "-consul", consul.URL(), "-name", "orders", "-id", "orders-1",
		"-tags", "sluice.path=/orders/*", "-tags", "blue", "-meta", "version=2", "-weight", "7")
	testenv.Eventually(t, patience, "orders to pass", func() bool { return passing(t, consul, "orders") })

	type entry struct {
		ID, Service, Address string
		Port                 int
		Tags                 []string
		Meta                 map[string]string
		Weights              agentWeights
	}
	var got entry
	get(t, consul.URL()+"/v1/agent/service/orders-1", &got)
	want := entry{
		ID: "orders-1", Service: "orders", Address: "127.0.0.1", Port: got.Port,
		Tags: []string{"sluice.path=/orders/*", "blue"}, Meta: map[string]string{"version": "2"},
		Weights: agentWeights{Passing: 7, Warning: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !strings.HasSuffix(s.addr, ":"+strconv.Itoa(got.Port)) {
		t.Errorf("registered port %d, serves on %s", got.Port, s.addr)
	}
}

func TestAnAgentThatWasNeverThereIsLoggedOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close() // nobody answers there now
	var log strings.Builder
	r := newRegistration(options{name: "orders", check: checkNone, consul: "http://" + addr.String()}, addr, nil,
		slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		if r.ensure(t.Context()) {
			t.Fatal("it is registered")
		}
	}
	if n := strings.Count(log.String(), "not registered; trying on"); n != 1 || !strings.Contains(log.String(), addr.String()) {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

func TestHealthReachesConsul(t *testing.T) {
	consul := testenv.StartConsul(t)
	for _, check := range [][]string{
		{"-check", "http"},
		{"-check", "ttl", "-interval", "100ms"},
	} {
		t.Run("by a check of kind "+check[1], func(t *testing.T) {
			name := "by-" + check[1]
			s := start(t, append(check, "-consul", consul.URL(), "-name", name)...)
			testenv.Eventually(t, patience, "it to pass", func() bool { return passing(t, consul, name) })
			set := func(status string) {
				res, err := http.Post("http://"+s.addr+"/healthz?status="+status, "", nil)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
			}
			set("503")
			testenv.Eventually(t, patience, "it to be critical", func() bool {
				return slices.Equal(checks(t, consul, name), []string{"critical"})
			})
			set("200")
			testenv.Eventually(t, patience, "it to pass again", func() bool { return passing(t, consul, name) })
			http.DefaultClient.CloseIdleConnections()
		})
	}
}

func TestRegistrationWithoutACheckPasses(t *testing.T) {
	consul := testenv.StartConsul(t)
	start(t, "-consul", consul.URL(), "-name", "bare", "-check", "none")
	testenv.Eventually(t, patience, "it to be listed as passing", func() bool {
		var entries []json.RawMessage
		get(t, consul.URL()+"/v1/health/service/bare?passing=1", &entries)
		return len(entries) == 1 && len(checks(t, consul, "bare")) == 0
	})
}

func TestRegistrationComesBack(t *testing.T) {
	consul := testenv.StartConsul(t)
	consul.Stop()
	start(t, "-consul", consul.URL(), "-name", "orders", "-id", "orders-1")
	consul.Restart()
	there := func() bool { return passing(t, consul, "orders") }
	testenv.Eventually(t, patience, "it to register once the agent is there", there)

	consul.Kill() // a -dev agent forgets everything
	consul.Restart()
	testenv.Eventually(t, patience, "it to register with an agent that forgot", there)

	req, err := http.NewRequest("PUT", consul.URL()+"/v1/agent/service/deregister/orders-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	testenv.Eventually(t, patience, "it to register after somebody took it out", there)
}

func TestLeavingServesOnUntilCallersKnow(t *testing.T) {
	consul := testenv.StartConsul(t)
	s := start(t, "-consul", consul.URL(), "-name", "orders", "-id", "orders-1", "-linger", "3s")
	testenv.Eventually(t, patience, "it to pass", func() bool { return passing(t, consul, "orders") })

	slow := make(chan int, 1)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		// Ends after the linger does: only the shutdown waits for it.
		res, err := client.Get("http://" + s.addr + "/slow?ms=4500")
		if err != nil {
			slow <- 0
			return
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		slow <- res.StatusCode
	}()
	s.stop()
	testenv.Eventually(t, patience, "it to leave Consul", func() bool {
		return get(t, consul.URL()+"/v1/agent/service/orders-1", nil) == http.StatusNotFound
	})
	if got := get(t, "http://"+s.addr+"/", nil); got != http.StatusOK {
		t.Errorf("a caller that did not know yet got %d, want 200", got)
	}
	if got := <-slow; got != http.StatusOK {
		t.Errorf("the request in flight got %d, want 200", got)
	}
	if err := <-s.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if got := get(t, "http://"+s.addr+"/", nil); got != 0 {
		t.Errorf("it still answers: %d", got)
	}
}
