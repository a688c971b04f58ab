package consul

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-gateway/sluice/discovery"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	// As an operator's tools do it: the file is whole at any moment.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func entry(node, address, id, service string, port int) *api.ServiceEntry {
	return &api.ServiceEntry{
		Node:    &api.Node{Node: node, Address: address},
		Service: &api.AgentService{ID: id, Address: service, Port: port, Weights: api.AgentWeights{Passing: 1}},
	}
}

func TestInstances(t *testing.T) {
	full := entry("n1", "10.0.0.1", "a", "10.1.0.1", 80)
	full.Service.Tags = []string{"green", "blue", "green"}
	full.Service.Meta = map[string]string{"zone": "a"}
	full.Service.Weights.Passing = 7
	full.Service.CreateIndex = 42
	for _, tc := range []struct {
		name string
		in   []*api.ServiceEntry
		want []discovery.Instance
	}{
		{"none is an empty list", nil, []discovery.Instance{}},
		{"everything is kept, tags sorted", []*api.ServiceEntry{full}, []discovery.Instance{{
			ID: "n1/a", Address: "10.1.0.1:80", Weight: 7, Tags: []string{"blue", "green"},
			Meta: map[string]string{"zone": "a"}, Registered: 42,
		}}},
		{"without an address the node's counts", []*api.ServiceEntry{entry("n1", "10.0.0.1", "a", "", 80)},
			[]discovery.Instance{{ID: "n1/a", Address: "10.0.0.1:80", Weight: 1}}},
		{"IPv6 is bracketed once", []*api.ServiceEntry{entry("n1", "::1", "a", "", 80), entry("n1", "", "b", "[fe80::1]", 81)},
			[]discovery.Instance{{ID: "n1/a", Address: "[::1]:80", Weight: 1}, {ID: "n1/b", Address: "[fe80::1]:81", Weight: 1}}},
		{"sorted by ID, the same ID on two nodes is two instances",
			[]*api.ServiceEntry{entry("n2", "h2", "a", "", 1), entry("n1", "h1", "b", "", 2), entry("n1", "h1", "a", "", 3)},
			[]discovery.Instance{{ID: "n1/a", Address: "h1:3", Weight: 1}, {ID: "n1/b", Address: "h1:2", Weight: 1}, {ID: "n2/a", Address: "h2:1", Weight: 1}}},
		{"of the same ID the first stays", []*api.ServiceEntry{entry("n", "h", "a", "", 1), entry("n", "h", "a", "", 2)},
			[]discovery.Instance{{ID: "n/a", Address: "h:1", Weight: 1}}},
		{"what cannot be dialled is left out",
			[]*api.ServiceEntry{nil, {}, entry("n", "", "a", "", 80), entry("n", "h", "b", "", 0), entry("n", "h", "c", "", 65536), entry("n", "h", "d", "", -1)},
			[]discovery.Instance{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := instances(tc.in); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func FuzzInstances(f *testing.F) {
	f.Add([]byte(`[{"Node":{"Node":"n","Address":"::1"},"Service":{"ID":"a","Port":80,"Tags":["b","a"],"Weights":{"Passing":-1}}}]`))
	f.Add([]byte(`[null,{},{"Node":null,"Service":{"ID":"a","Address":"[x]","Port":65535}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var entries []*api.ServiceEntry
		if json.Unmarshal(data, &entries) != nil {
			return
		}
		got := instances(entries)
		for i, in := range got {
			if i > 0 && got[i-1].ID >= in.ID {
				t.Fatalf("%q stands before %q", got[i-1].ID, in.ID)
			}
			if in.Weight < 0 || !slices.IsSorted(in.Tags) {
				t.Fatalf("bad instance %+v", in)
			}
			if !strings.ContainsAny(in.Address, "[]") {
				if _, _, err := net.SplitHostPort(in.Address); err != nil {
					t.Fatalf("%q is no address: %v", in.Address, err)
				}
			}
		}
		if !sameInstances(got, instances(entries)) {
			t.Fatal("the same entries are not the same instances")
		}
	})
}

func TestServiceApply(t *testing.T) {
	now := time.Unix(1000, 0)
	one := []discovery.Instance{{ID: "n/1"}}
	two := []discovery.Instance{{ID: "n/1"}, {ID: "n/2"}}
	none := []discovery.Instance{}
	type step struct {
		found   []discovery.Instance
		index   uint64
		after   time.Duration
		changed bool
		want    []discovery.Instance
	}
	const hold = 30 * time.Second
	for name, steps := range map[string][]step{
		"an answer applies, the same again does not":       {{one, 10, 0, true, one}, {one, 11, 0, false, one}, {two, 12, 0, true, two}},
		"the first answer applies even when it is empty":   {{none, 10, 0, true, none}, {none, 11, 0, false, none}},
		"none empties the service":                         {{one, 10, 0, true, one}, {none, 11, 0, true, none}},
		"a lower index with instances applies":             {{two, 10, 0, true, two}, {one, 3, 0, true, one}},
		"a lower index with none is held":                  {{one, 10, 0, true, one}, {none, 3, 0, false, one}},
		"more empty answers do not end or lengthen a hold": {{one, 10, 0, true, one}, {none, 3, 0, false, one}, {none, 4, 20 * time.Second, false, one}, {none, 2, 25 * time.Second, false, one}},
		"instances end a hold":                             {{two, 10, 0, true, two}, {none, 3, 0, false, two}, {one, 5, 0, true, one}, {none, 6, 0, true, none}},
		"the same instances end a hold without a change":   {{one, 10, 0, true, one}, {none, 3, 0, false, one}, {one, 5, 0, false, one}, {none, 6, 0, true, none}},
		"an empty service stays empty at a lower index":    {{none, 10, 0, true, none}, {none, 3, 0, false, none}},
	} {
		t.Run(name, func(t *testing.T) {
			svc := &service{}
			for i, s := range steps {
				if got := svc.apply(s.found, s.index, now.Add(s.after), time.Time{}, hold); got != s.changed || !sameInstances(svc.instances, s.want) {
					t.Fatalf("step %d: changed %v, %+v", i, got, svc.instances)
				}
				if !svc.known || !svc.settled || svc.index != s.index {
					t.Fatalf("step %d: not noted: %+v", i, svc)
				}
			}
			if !svc.heldUntil.IsZero() && (svc.expire(now.Add(hold-1)) || !svc.expire(now.Add(hold)) || len(svc.instances) != 0) {
				t.Errorf("the hold did not end after %s", hold)
			}
		})
	}
}

func TestAnEmptyAnswerAfterAnOutage(t *testing.T) {
	now := time.Unix(1000, 0)
	one := []discovery.Instance{{ID: "n/1"}}
	svc := &service{}
	svc.apply(one, 10, now, time.Time{}, time.Minute)
	if svc.apply(nil, 20, now, now.Add(time.Second), time.Minute) || len(svc.instances) != 1 {
		t.Fatal("it must wait, though the index rose")
	}
	if svc.apply(nil, 21, now, now.Add(3*time.Second), time.Minute) || svc.expire(now.Add(2*time.Second)) {
		t.Fatal("the wait must be lengthened once the state is known to be lost")
	}
	if !svc.expire(now.Add(3*time.Second)) || len(svc.instances) != 0 {
		t.Fatal("the wait must end")
	}
	svc.apply(one, 30, now, time.Time{}, time.Minute)
	if !svc.apply(nil, 31, now, now.Add(-time.Second), time.Minute) {
		t.Fatal("an outage that is past holds nothing")
	}
}

func TestCatalogApply(t *testing.T) {
	now := time.Unix(1000, 0)
	const hold = 30 * time.Second
	a, b := map[string][]string{"a": {"s.x"}}, map[string][]string{"b": {"s.y"}}
	var c catalog
	if !c.apply(nil, 5, now, hold) || c.apply(nil, 6, now, hold) {
		t.Fatal("the first answer is a change, the same again is none")
	}
	if !c.apply(a, 10, now, hold) || !reflect.DeepEqual(c.announced, a) {
		t.Fatalf("after a: %v", c.announced)
	}
	if !c.apply(b, 11, now, hold) || !reflect.DeepEqual(c.announced, b) {
		t.Fatalf("after b: %v", c.announced)
	}
	if c.apply(nil, 3, now, hold) || c.apply(nil, 4, now.Add(hold/2), hold) || !reflect.DeepEqual(c.announced, b) {
		t.Fatalf("a lower index must hold what went: %v", c.announced)
	}
	if !c.apply(a, 7, now, hold) || len(c.announced) != 2 {
		t.Fatalf("what is new applies beside what is held: %v", c.announced)
	}
	if c.expire(now.Add(hold-1)) || !c.expire(now.Add(hold)) || !reflect.DeepEqual(c.announced, a) {
		t.Fatalf("after the hold: %v", c.announced)
	}
}

func TestAnnouncements(t *testing.T) {
	got := announcements(map[string][]string{
		"a": {"blue", "sluice.path=/b", "sluice.path=/a", "sluice.path=/b"}, "b": {"blue"}, "c": nil, "d": {"Sluice.path=/"},
	}, "sluice.")
	if want := map[string][]string{"a": {"sluice.path=/a", "sluice.path=/b"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestDiffChecks(t *testing.T) {
	list := func(checks ...check) map[checkKey]check {
		m := map[checkKey]check{}
		for _, c := range checks {
			m[checkKey{c.Node, c.CheckID}] = c
		}
		return m
	}
	old := list(check{"n1", "same", "same", 1}, check{"n1", "changed", "changed", 1}, check{"n1", "gone", "gone", 1},
		check{"n1", "moved", "from", 1}, check{"n1", "serf", "", 1}, check{"n2", "serf", "", 1}, check{"n3", "serf", "", 1})
	now := list(check{"n1", "same", "same", 1}, check{"n1", "changed", "changed", 2}, check{"n1", "new", "new", 3},
		check{"n1", "moved", "to", 2}, check{"n1", "serf", "", 1}, check{"n2", "serf", "", 2})
	services, nodes := map[string]bool{}, map[string]bool{}
	diffChecks(old, now, services, nodes)
	if want := map[string]bool{"changed": true, "gone": true, "new": true, "from": true, "to": true}; !reflect.DeepEqual(services, want) {
		t.Errorf("services %v, want %v", services, want)
	}
	if want := map[string]bool{"n2": true, "n3": true}; !reflect.DeepEqual(nodes, want) {
		t.Errorf("nodes %v, want %v", nodes, want)
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	for i := range 100 {
		step := min(backoffBase<<min(i, 10), backoffCap)
		if d := b.next(); d < step/10 || d >= step {
			t.Fatalf("try %d waits %s, want %s to %s", i, d, step/10, step)
		}
	}
	if b.reset(); b.next() >= backoffBase {
		t.Error("a reset starts over")
	}
}

func TestPlan(t *testing.T) {
	refs := func(dc string, names string) (out []discovery.ServiceRef) {
		for _, n := range strings.Split(names, "") {
			out = append(out, discovery.ServiceRef{Name: n, Datacenter: dc})
		}
		return out
	}
	for _, tc := range []struct {
		name    string
		refs    []discovery.ServiceRef
		has     []discovery.ServiceRef
		watches int
		catalog bool
		direct  []discovery.ServiceRef
		shared  []string
	}{
		{"what fits has its own query", refs("", "abc"), nil, 3, false, refs("", "abc"), nil},
		{"the catalog of announcements takes one", refs("", "abcd"), nil, 4, true, refs("", "ab"), []string{""}},
		{"what does not fit shares two watches, the rest of the queries is used", refs("", "abcdef"), nil, 5, false, refs("", "abc"), []string{""}},
		{"who has a query keeps it", refs("", "abcdef"), refs("", "ef"), 5, false, refs("", "aef"), []string{""}},
		{"the biggest datacenter shares first", append(refs("", "ab"), refs("far", "abcdefgh")...), nil, 6, false, append(refs("", "ab"), refs("far", "ab")...), []string{"far"}},
		{"all share when they must", append(refs("", "abcd"), refs("far", "abcd")...), nil, 4, false, nil, []string{"", "far"}},
		{"more datacenters than watches", append(refs("x", "abc"), append(refs("y", "ab"), refs("z", "ab")...)...), nil, 3, false, refs("y", "a"), []string{"x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := makePlan(tc.refs, func(r discovery.ServiceRef) bool { return slices.Contains(tc.has, r) }, tc.watches, tc.catalog)
			want := map[discovery.ServiceRef]bool{}
			for _, r := range tc.direct {
				want[r] = true
			}
			if !reflect.DeepEqual(p.direct, want) || !slices.Equal(p.shared, tc.shared) {
				t.Errorf("got %v and %q, want %v and %q", p.direct, p.shared, want, tc.shared)
			}
		})
	}
	for n := minConnections; n < 300; n++ {
		if b := divide(n); b.readers < 1 || b.watches < 4 || b.readers+b.watches != sourceConnections(n) {
			t.Fatalf("%d connections are divided into %+v", n, b)
		}
	}
}

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"the default is good", func(*Config) {}, nil},
		{"a socket is good", func(c *Config) { c.Address = "unix:///run/consul.sock" }, nil},
		{"switched off is good whatever else it says", func(c *Config) { *c = Config{} }, nil},
		{"an address needs a scheme", func(c *Config) { c.Address = "localhost:8500" }, []string{"consul.address"}},
		{"an address without a host", func(c *Config) { c.Address = "http://:8500" }, []string{"consul.address"}},
		{"a password in the address is not repeated", func(c *Config) { c.Address = "http://u:secret@h" }, []string{"consul.address"}},
		{"two tokens", func(c *Config) { c.Token = "secret"; c.TokenFile = os.Args[0] }, []string{"consul.token_file"}},
		{"a token file that is not there", func(c *Config) { c.TokenFile = dir + "/no" }, []string{"consul.token_file"}},
		{"a token file that is a directory", func(c *Config) { c.TokenFile = dir }, []string{"consul.token_file"}},
		{"an empty prefix with announced routes", func(c *Config) { c.TagPrefix = "" }, []string{"consul.tag_prefix"}},
		{"too few connections", func(c *Config) { c.MaxConnections = 7 }, []string{"consul.max_connections"}},
		{"half a client certificate", func(c *Config) { c.TLS.CertFile = os.Args[0] }, []string{"consul.tls"}},
		{"every fault is named", func(c *Config) { c.Address = "x"; c.MaxConnections = 0; c.TLS.CAFile = dir + "/no" },
			[]string{"consul.address", "consul.max_connections", "consul.tls.ca_file"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Default()
			tc.change(&c)
			var got []string
			for _, err := range c.Validate("consul") {
				field, _, _ := strings.Cut(err.Error(), ": ")
				got = append(got, field)
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("a secret is printed: %v", err)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("faults in %q, want %q", got, tc.want)
			}
			if _, err := New(c, quiet()); (err == nil) != (tc.want == nil && c.Address != "") {
				t.Errorf("New: %v", err)
			}
		})
	}
}

func TestRegistrationIsValidated(t *testing.T) {
	_, err := NewRegistrar(Default(), RegistrationConfig{CheckURL: "readyz"}, quiet())
	for _, field := range []string{"registration id", "registration port", "registration check url"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name the %s", err, field)
		}
	}
}

func TestTokenFile(t *testing.T) {
	file := t.TempDir() + "/token"
	write(t, file, " one \n")
	tok, err := newToken(Config{TokenFile: file}, quiet())
	if err != nil || tok.get() != "one" {
		t.Fatalf("got %q, %v", tok.get(), err)
	}
	next := func() string {
		tok.checked = time.Time{}
		return tok.get()
	}
	write(t, file, "two")
	if got := next(); got != "two" {
		t.Errorf("after a change: %q", got)
	}
	write(t, file, "three\nfour")
	if got := next(); got != "two" {
		t.Errorf("after a bad change: %q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "two" {
		t.Errorf("without the file: %q", got)
	}
	if _, err := newToken(Config{TokenFile: file}, quiet()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file at the start: %v", err)
	}
}

func TestARefusalNamesTheSettingToLookAt(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a token that is not enough":      {api.StatusError{Code: 403, Body: "Permission denied"}, "consul.token"},
		"an answer that ACLs thinned out": {errFiltered, "consul.token"},
		"a certificate of another CA":     {&tls.CertificateVerificationError{Err: errors.New("unknown authority")}, "consul.tls.ca_file"},
		"a client certificate is wanted":  {errors.New("remote error: tls: certificate required"), "consul.tls.cert_file"},
		"https without TLS":               {errors.New("http: server gave HTTP response to HTTPS client"), "consul.address"},
		"an agent that is away":           {errors.New("connection refused"), ""},
		"a server error":                  {api.StatusError{Code: 500, Body: "No cluster leader"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := fmt.Errorf("ask consul: %w", c.err)
			got := advise(err)
			if !errors.Is(got, err) || strings.Contains(got.Error(), "consul.") != (c.want != "") || !strings.Contains(got.Error(), c.want) {
				t.Errorf("got %v, want it to name %q", got, c.want)
			}
		})
	}
}
