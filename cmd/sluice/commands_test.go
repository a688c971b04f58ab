package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// result is what one command line did.
type result struct {
	out, err string
	code     int
}

// run executes a command line in this process, with no SLUICE_ variables but
// those that the test sets after clean.
func run(t *testing.T, line ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // for a serve that should have failed
	defer cancel()
	code := execute(ctx, line, &out, &errs)
	return result{out.String(), errs.String(), code}
}

// clean takes the variables of whoever runs the tests out of the way.
func clean(t *testing.T) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "SLUICE_") {
			t.Setenv(name, value) // so that it comes back
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// nobody is a loopback address that refuses connections.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestALineThatCannotBeUnderstoodExitsWith2AndSaysWhatIsAccepted(t *testing.T) {
	clean(t)
	for _, c := range []struct {
		line string
		want []string
	}{
		{"nope", []string{`unknown command "nope"`, "check, explain, get"}},
		{"--nope", []string{"unknown flag: --nope"}},
		{"help nope", []string{`unknown command "nope"`, "check, explain, get"}},
		{"help get nope", []string{`unknown command "get nope"`}},
		{"serve extra", []string{"usage: sluice serve [-c FILE]"}},
		{"serve --listen.htp :80", []string{"unknown flag: --listen.htp"}},
		{"serve --log.level loud", []string{`flag --log.level: log.level: is "loud"; accepted are debug`}},
		{"serve --limits.max_streams many", []string{"flag --limits.max_streams: "}},
		{"serve --admin.token secret", []string{"unknown flag: --admin.token"}},
		{"version extra", []string{"usage: sluice version"}},
		{"healthcheck extra", []string{"usage: sluice healthcheck"}},
		{"get", []string{"usage: sluice get routes|services|instances|problems|status [NAME]"}},
		{"get routes a b", []string{"usage: sluice get"}},
		{"get route", []string{`"route" is not one of routes, services, instances, problems, status`}},
		{"get status orders", []string{"status takes no NAME"}},
		{"get routes -o xml", []string{`-o: "xml" is not one of table, json, yaml`}},
		{"get routes -o", []string{"flag needs an argument"}},
		{"get routes --admin ::bad", []string{`--admin: "::bad" is not an address such as 127.0.0.1:8081 or http://host:8081`}},
		{"get routes --admin ftp://127.0.0.1:8081", []string{"--admin: ", "ftp", "is not an address such as"}},
		{"get routes --admin http://u:hunter2@127.0.0.1:8081", []string{"--admin: ", "is not an address such as"}},
		{"get routes --admin http://127.0.0.1:8081/api", []string{"--admin: ", "is not an address such as"}},
		{"healthcheck --admin http://", []string{"--admin: "}},
		{"explain GET", []string{"usage: sluice explain METHOD URL"}},
		{"explain GET / -o yaml", []string{`-o: "yaml" is not one of text, json`}},
		{"explain G(T /", []string{`"G(T" is not a method such as GET`}},
		{"explain GET orders/1", []string{`"orders/1" is not a URL such as http://api.example.com/orders/1 or /orders/1`}},
		{"explain GET http://[::1/a", []string{`"http://[::1/a" is not a URL`}},
		{"explain GET http:///a", []string{"is not a URL"}},
		{"explain GET ftp://a/b", []string{"is not a URL"}},
		{"explain GET / -H nonsense", []string{`-H: "nonsense" is not 'Name: value'`}},
		{"explain GET / -H a(b:c", []string{`-H: "a(b:c" is not 'Name: value'`}},
		{"switch orders", []string{"usage: sluice switch SERVICE green | SERVICE blue=90,green=10"}},
		{"switch a/b green", []string{`service "a/b"`, "accepted are letters, digits"}},
		{"switch .orders green", []string{`switch: service ".orders" is not a name: accepted are letters`}},
		{"switch orders green=", []string{"subset green", "not a weight from 0 to 1000000", "blue=90,green=10"}},
		{"switch orders blue=1,blue=2", []string{"subset blue is named twice"}},
		{"switch orders blue=-1", []string{"subset blue", "not a weight"}},
		{"switch orders blue=0", []string{"accepted is"}},
		{"switch orders green --timeout soon", []string{`invalid argument "soon"`, "--timeout"}},
		{"switch orders green --timeout 0s", []string{"--timeout: 0s is not more than 0s"}},
		{"switch orders green --timeout -1s", []string{"--timeout: -1s is not more than 0s"}},
	} {
		t.Run(c.line, func(t *testing.T) {
			r := run(t, words(c.line)...)
			if r.code != exitUsage || r.out != "" || !strings.HasPrefix(r.err, "sluice: ") || !strings.Contains(r.err, "--help") {
				t.Errorf("exit %d, out %q, err %q", r.code, r.out, r.err)
			}
			for _, w := range c.want {
				if !strings.Contains(r.err, w) {
					t.Errorf("%q does not say %q", r.err, w)
				}
			}
			if strings.Contains(r.err, "hunter2") {
				t.Errorf("a password is printed: %s", r.err)
			}
		})
	}
}

func TestEveryCommandHelpsWithAnExample(t *testing.T) {
	clean(t)
	for _, c := range append(rootCommand().Commands(), rootCommand()) {
		line := append(strings.Fields(c.CommandPath())[1:], "--help")
		r := run(t, line...)
		if r.code != exitGood || r.err != "" || !strings.Contains(r.out, "Examples:\n  ") || !strings.Contains(r.out, "Usage:") {
			t.Errorf("%v: exit %d, err %q\n%s", line, r.code, r.err, r.out)
		}
	}
	if r := run(t); r.code != exitGood || !strings.Contains(r.out, "Available Commands:") {
		t.Errorf("no arguments: exit %d\n%s", r.code, r.out)
	}
}

func TestVersionSaysWhatWasBuilt(t *testing.T) {
	r := run(t, "version")
	if r.code != exitGood || !strings.HasPrefix(r.out, "sluice "+version+" (commit "+commit+", go1.") {
		t.Errorf("exit %d: %s%s", r.code, r.out, r.err)
	}
}

func TestAServerThatIsAwayIsNamed(t *testing.T) {
	clean(t)
	address := nobody(t)
	t.Setenv("SLUICE_ETCD_ENDPOINTS", "http://"+address)
	for line, want := range map[string][]string{
		"get routes --admin " + address:             {"is it running", "--admin", address, "connection refused"},
		"explain GET / --admin http://" + address:   {"is it running", address, "connection refused"},
		"healthcheck --admin " + address:            {"is it running", address, "connection refused"},
		"switch orders green --timeout 50ms":        {"switch: etcd at http://" + address, "/sluice/active/orders"},
		"switch orders green --wait --timeout 50ms": {"switch: etcd at http://" + address, "/sluice/active/orders"},
	} {
		r := run(t, words(line)...)
		if r.code != exitFailed || r.out != "" {
			t.Errorf("%s: exit %d, out %q", line, r.code, r.out)
		}
		for _, w := range want {
			if !strings.Contains(r.err, w) {
				t.Errorf("%s: %q does not say %q", line, r.err, w)
			}
		}
	}
	t.Setenv("SLUICE_ADMIN_LISTEN", address)
	if r := run(t, "get", "routes"); r.code != exitFailed || !strings.Contains(r.err, address) {
		t.Errorf("without --admin: %+v", r)
	}
	t.Setenv("SLUICE_ETCD_ENDPOINTS", "")
	if r := run(t, "switch", "orders", "green"); r.code != exitFailed || !strings.Contains(r.err, "etcd.endpoints is empty") {
		t.Errorf("without etcd: %+v", r)
	}
}

func TestCheckNamesFileAndField(t *testing.T) {
	clean(t)
	dir := t.TempDir()
	config := write(t, dir+"/keys.yaml", "lisen: {}\nlog: {levle: info}\n")
	values := write(t, dir+"/values.yaml", "log: {level: loud}\nlimits: {max_streams: 0}\nfile: {path: "+dir+"/docs}\n")
	good := write(t, dir+"/docs/routes/good.yaml", "path: /a\nservice: orders\n")
	route := write(t, dir+"/docs/routes/orders.yaml", "path: /orders/*\nservise: orders\n")
	service := write(t, dir+"/docs/services/orders.json", `{"balance":"fair"}`)
	active := write(t, dir+"/docs/active/orders", "green=")
	for _, c := range []struct {
		name string
		line []string
		code int
		want []string
	}{
		{"unknown keys", []string{"-c", config}, 1, []string{config + ":1: lisen: is not a key here; accepted are name, listen", config + ":2: log.levle: is not a key here; accepted are level, format, access", "faults found: 2"}},
		{"values", []string{"-c", values}, 1, []string{values + ": log.level: is \"loud\"; accepted are debug", values + ": limits.max_streams: is 0; accepted is 1 to 100000"}},
		{"documents", []string{good, route, service, active}, 1, []string{route + ": ", "servise: is not a field here; did you mean service?", service + ": balance: ", active + ": ", "faults found: 3"}},
		{"a directory", []string{dir + "/docs"}, 1, []string{"routes/orders.yaml: ", "servise: ", "services/orders.json: balance: ", "active/orders: ", "faults found: 3"}},
		{"a document that is not there", []string{dir + "/none.yaml"}, 1, []string{dir + "/none.yaml", "no such file"}},
		{"a configuration that is not there", []string{"-c", dir + "/none.yaml"}, 1, []string{"configuration: ", dir + "/none.yaml", "no such file"}},
		{"good ones", []string{good}, 0, []string{"ok: configuration and 1 documents"}},
		{"nothing", nil, 0, []string{"ok: configuration and 0 documents"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, append([]string{"check"}, c.line...)...)
			if r.code != c.code {
				t.Errorf("exit %d", r.code)
			}
			for _, w := range c.want {
				if !strings.Contains(r.out+r.err, w) {
					t.Errorf("no %q in\n%s%s", w, r.out, r.err)
				}
			}
		})
	}
}

// gatewayAnswers is an admin listener that asks for a token.
func gatewayAnswers(t *testing.T, token string, answers map[string]string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch body, ok := answers[r.URL.RequestURI()]; {
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"detail":"the admin API wants a token"}`))
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write([]byte(body))
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestCommandsSendTheTokenOfTheConfiguration(t *testing.T) {
	clean(t)
	const routes = `{"items":[{"name":"orders","path":"/orders/*","service":"orders","state":"ok","key":"/sluice/routes/orders","revision":7}]}`
	admin := gatewayAnswers(t, "s3cret", map[string]string{
		"/api/v1/routes": routes, "/api/v1/routes?name=orders": routes, "/livez": `{"status":"alive"}`,
		"/api/v1/problems":                   "nonsense",
		"/api/v1/explain?method=GET&url=%2F": `{"outcome":"not_found","method":"GET","host":"","losers":[],"plugins":[]}`,
	})
	dir := t.TempDir()
	inline := write(t, dir+"/inline.yaml", "admin: {token: s3cret}\n")
	inFile := write(t, dir+"/file.yaml", "admin: {token_file: "+write(t, dir+"/token", "s3cret\n")+"}\n")
	for _, config := range []string{inline, inFile} {
		for line, want := range map[string]string{
			"get routes":                "orders  -      /orders/*  -        orders   ok     /sluice/routes/orders  7",
			"get routes orders -o yaml": "path: /orders/*",
			"get routes orders -o json": routes,
			"explain GET /":             "not_found",
			"explain get / -o json":     `"outcome":"not_found"`,
			"healthcheck":               "ok\n",
		} {
			r := run(t, append(words(line), "--admin", admin, "-c", config)...)
			if r.code != exitGood || !strings.Contains(r.out, want) {
				t.Errorf("%s: exit %d %s\n%s", line, r.code, r.err, r.out)
			}
		}
	}
	t.Setenv("SLUICE_ADMIN_TOKEN", "wr0ng")
	for _, line := range []string{"get routes", "explain GET /", "healthcheck"} {
		r := run(t, append(words(line), "--admin", admin)...)
		if r.code != exitFailed || !strings.Contains(r.err, "401 Unauthorized: the admin API wants a token") || strings.Contains(r.err, "wr0ng") {
			t.Errorf("%s with a wrong token: %+v", line, r)
		}
	}
	if r := run(t, "get", "problems", "--admin", admin, "-c", write(t, dir+"/x.yaml", "")); r.code != exitFailed {
		t.Errorf("got %+v", r)
	}
	t.Setenv("SLUICE_ADMIN_TOKEN", "s3cret")
	for _, line := range []string{"get problems", "get problems -o yaml", "get services", "explain GET /other"} {
		if r := run(t, append(words(line), "--admin", admin)...); r.code != exitFailed || !strings.Contains(r.err, "the gateway") {
			t.Errorf("%s, which is not answered well: %+v", line, r)
		}
	}
}

// Row 88: what the command line prints when things go wrong.
func TestRow88NoCommandPrintsASecret(t *testing.T) {
	clean(t)
	never := func(line ...string) {
		t.Helper()
		r := run(t, line...)
		if said := r.out + r.err; strings.Contains(said, "c4n4ry") {
			t.Errorf("%v prints a secret:\n%s", line, said)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"lists.yaml":   "admin: {token: [c4n4ry-list]}\netcd: {password: [c4n4ry]}\nconsul: {token: {c4n4ry: 1}}\n",
		"syntax.yaml":  "admin: {token: \"c4n4ry\n",
		"urls.yaml":    "consul: {address: \"http://u:c4n4ry@127.0.0.1:8500\"}\netcd: {endpoints: [\"http://u:c4n4ry@127.0.0.1:2379\"]}\n",
		"space.yaml":   "admin: {token: \"c4n4ry c4n4ry\"}\n",
		"user.yaml":    "etcd: {password: c4n4ry}\n",
		"beside.yaml":  "admin: {token: c4n4ry, token_file: /dev/null}\n",
		"unknown.yaml": "admin: {tokn: c4n4ry}\n",
	} {
		path := write(t, dir+"/"+name, text)
		for _, command := range []string{"check", "serve", "healthcheck"} {
			if r := run(t, command, "-c", path); r.code != exitFailed {
				t.Errorf("%s -c %s: exit %d\n%s", command, name, r.code, r.out)
			}
			never(command, "-c", path)
		}
	}
	address := nobody(t)
	t.Setenv("SLUICE_ETCD_ENDPOINTS", "http://"+address)
	t.Setenv("SLUICE_ADMIN_TOKEN", "c4n4ry-admin")
	t.Setenv("SLUICE_CONSUL_TOKEN", "c4n4ry-consul")
	t.Setenv("SLUICE_ETCD_USERNAME", "root")
	t.Setenv("SLUICE_ETCD_PASSWORD", "c4n4ry-etcd")
	never("get", "routes", "--admin", address)
	never("explain", "GET", "/", "--admin", address)
	never("healthcheck", "--admin", address)
	never("switch", "orders", "green", "--timeout", "50ms")
	never("check")
	never("serve", "--log.level", "loud")
	never("serve", "--help")
}
