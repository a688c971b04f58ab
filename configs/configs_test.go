package configs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/routing"
)

// clean takes the variables of whoever runs the tests out of the way.
func clean(t *testing.T) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, envPrefix) {
			t.Setenv(name, value) // so that it comes back
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeMaterial fills a directory with what files may name: a certificate
// and its key, another key, a token, an empty file, and text.
func writeMaterial(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var keys []*ecdsa.PrivateKey
	for _, name := range []string{"key.pem", "other.pem"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, name, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		keys = append(keys, key)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &keys[0].PublicKey, keys[0])
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, dir, "token", "s3cret-from-file\n")
	write(t, dir, "empty", "\n")
	write(t, dir, "text", "no certificate\n")
	return dir
}

func TestEveryBadFileGivesExactlyItsFaults(t *testing.T) {
	clean(t)
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no bad files", err)
	}
	dir := writeMaterial(t)
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(text)) {
				if w, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, strings.TrimSpace(w))
				}
			}
			path := write(t, t.TempDir(), "sluice.yaml", strings.ReplaceAll(string(text), "${DIR}", dir))
			_, err = Load(path, nil)
			if err == nil || len(want) == 0 {
				t.Fatalf("got %v, want %q", err, want)
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(want) {
				t.Errorf("%d faults, want %d: %q", len(got), len(want), got)
			}
			for _, w := range want {
				if !hasLine(got, path, w) {
					t.Errorf("no fault %q in %q", w, got)
				}
			}
			if said := strings.ReplaceAll(err.Error(), path, ""); strings.Contains(said, "s3cret") || strings.Contains(said, "31337") {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
}

// hasLine looks for a line with the file's name, a key and part of a message.
func hasLine(lines []string, path, want string) bool {
	key, part, hasKey := strings.Cut(want, ": ")
	for _, line := range lines {
		if strings.HasPrefix(line, path) && strings.Contains(line, key) && (!hasKey || strings.Contains(line, key+": ") && strings.Contains(line, part)) {
			return true
		}
	}
	return false
}

func TestTheCommentedFileSetsEveryKeyToItsDefault(t *testing.T) {
	clean(t)
	got, err := Load("sluice.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name == "" {
		t.Error("no name was made")
	}
	got.Name = ""
	if want := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	text, err := os.ReadFile("sluice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, s := range settings() {
		m := file
		for _, part := range s.parents() {
			m, _ = m[part].(map[string]any)
		}
		if _, ok := m[s.name()]; !ok {
			t.Errorf("%s is not in sluice.yaml", s.key)
		}
	}
}

func TestNoFileIsTheDefaults(t *testing.T) {
	clean(t)
	got, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name = got.Name
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestAnEmptyFileIsTheDefaults(t *testing.T) {
	clean(t)
	if _, err := Load(write(t, t.TempDir(), "a.yaml", "# nothing\n"), nil); err != nil {
		t.Error(err)
	}
}

func TestFlagsWinOverEnvironmentOverFileOverDefaults(t *testing.T) {
	clean(t)
	path := write(t, t.TempDir(), "a.yaml", "log: {level: warn, format: text}\nlimits: {max_headers: 10}\nshutdown: {delay: 1s}\netcd: {prefix: /file}\n")
	t.Setenv("SLUICE_LIMITS_MAX_HEADERS", "20")
	t.Setenv("SLUICE_SHUTDOWN_DELAY", "2s")
	t.Setenv("SLUICE_ETCD_ENDPOINTS", "http://10.0.0.1:2379, http://10.0.0.2:2379")
	t.Setenv("SLUICE_LOG_ACCESS", "false")
	t.Setenv("SLUICE_TRACING_SAMPLE_RATIO", "0.5")
	t.Setenv("SLUICE_CONSUL_ADDRESS", "") // switches Consul off
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--shutdown.delay=3s", "--trusted_proxies", "10.0.0.0/8,::1"}); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path, flags)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name = got.Name
	want.Log = Log{Level: "warn", Format: "text"}
	want.Limits.MaxHeaders = 20
	want.Shutdown.Delay = 3 * time.Second
	want.Etcd.Prefix = "/file"
	want.Etcd.Endpoints = []string{"http://10.0.0.1:2379", "http://10.0.0.2:2379"}
	want.Tracing.SampleRatio = 0.5
	want.Consul.Address = ""
	want.TrustedProxies = []string{"10.0.0.0/8", "::1"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFaultsNameWhereTheValueCameFrom(t *testing.T) {
	clean(t)
	path := write(t, t.TempDir(), "a.yaml", "log: {level: loud}\n")
	t.Setenv("SLUICE_LOG_FORMAT", "xml")
	t.Setenv("SLUICE_LIMITS_MAX_STREAMS", "0")
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--listen.http=80"}); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path, flags)
	want := `flag --listen.http: listen.http: "80" is not an address to listen on; accepted are :PORT and HOST:PORT, such as :8080 or [::1]:8080
environment SLUICE_LIMITS_MAX_STREAMS: limits.max_streams: is 0; accepted is 1 to 100000
` + path + `: log.level: is "loud"; accepted are debug, info, warn, error
environment SLUICE_LOG_FORMAT: log.format: is "xml"; accepted are json, text`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestUnknownVariablesAreRefused(t *testing.T) {
	clean(t)
	for _, name := range []string{"SLUICE_ETCD_ENDPOINT", "SLUICE_TLS_CERTIFICATES", "SLUICE_"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "s3cret")
			_, err := Load("", nil)
			if err == nil || !strings.Contains(err.Error(), "environment "+name+": is not a setting") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A Service named sluice makes Kubernetes put these into every pod beside it.
func TestVariablesOfKubernetesAreNotOurs(t *testing.T) {
	clean(t)
	for _, name := range []string{
		"SLUICE_SERVICE_HOST", "SLUICE_SERVICE_PORT", "SLUICE_SERVICE_PORT_HTTP", "SLUICE_PORT", "SLUICE_PORT_8080_TCP",
		"SLUICE_PORT_8080_TCP_ADDR", "SLUICE_ADMIN_SERVICE_HOST", "SLUICE_ADMIN_PORT", "SLUICE_ADMIN_PORT_8081_TCP_PROTO",
	} {
		t.Setenv(name, "tcp://10.0.0.1:8080")
	}
	if _, err := Load("", nil); err != nil {
		t.Error(err)
	}
	for _, s := range settings() {
		if kubernetesEnv.MatchString(s.env()) {
			t.Errorf("%s would be taken for a variable of Kubernetes", s.env())
		}
	}
}

func TestAFileThatIsNotThereIsAnError(t *testing.T) {
	clean(t)
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	if err == nil || !strings.Contains(err.Error(), "read the configuration: ") {
		t.Errorf("got %v", err)
	}
	large := write(t, t.TempDir(), "large.yaml", strings.Repeat("#", maxFileBytes+1))
	if _, err := Load(large, nil); err == nil || !strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestTheTokenIsReadFromItsFile(t *testing.T) {
	clean(t)
	dir := writeMaterial(t)
	t.Setenv("SLUICE_ADMIN_TOKEN_FILE", filepath.Join(dir, "token"))
	t.Setenv("SLUICE_ADMIN_LISTEN", ":8081")
	c, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Admin.Token.Reveal() != "s3cret-from-file" {
		t.Errorf("got %q", c.Admin.Token.Reveal())
	}
}

// Row 83: an admin listener that anyone can reach.
func TestRow83AdminBeyondLoopbackNeedsAToken(t *testing.T) {
	for listen, open := range map[string]bool{
		"127.0.0.1:8081": false, "127.9.9.9:0": false, "[::1]:8081": false, "localhost:8081": false, "[::ffff:127.0.0.1]:8081": false,
		":8081": true, "0.0.0.0:8081": true, "[::]:8081": true, "10.0.0.5:8081": true, "admin.internal:8081": true, "localhost.evil:8081": true,
	} {
		c := Default()
		c.Admin.Listen = listen
		if err := c.Validate(); (err != nil) != open {
			t.Errorf("%s without a token: %v", listen, err)
		}
		c.Admin.Token = "t0ken"
		if err := c.Validate(); err != nil {
			t.Errorf("%s with a token: %v", listen, err)
		}
	}
}

// Row 88: secrets in logs and dumps.
func TestRow88SecretsAreNotPrinted(t *testing.T) {
	c := Default()
	c.Admin.Token, c.Consul.Token, c.Etcd.Username, c.Etcd.Password = "c4n4ry", "c4n4ry", "root", "c4n4ry"
	encoded, err := json.Marshal(map[string]any{"config": c, "pointer": &c, "token": c.Admin.Token})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(h).Info("x", "config", c, "pointer", &c, "token", c.Admin.Token, "admin", c.Admin)
	}
	for name, text := range map[string]string{
		"String": c.String(), "JSON": string(encoded), "slog": log.String(),
		"%v": fmt.Sprintf("%v %+v %#v %s", c, c, c, &c), "Admin": fmt.Sprintf("%v %+v %#v", c.Admin, c.Admin, c.Admin),
		"Token": fmt.Sprintf("%v %+v %#v %s %q", c.Admin.Token, c.Admin.Token, c.Admin.Token, c.Admin.Token, c.Admin.Token),
	} {
		if strings.Contains(text, "c4n4ry") {
			t.Errorf("%s holds a secret: %s", name, text)
		}
		if name != "slog" && !strings.Contains(text, redacted) {
			t.Errorf("%s does not say that there is a secret: %s", name, text)
		}
	}
}

func TestSecretsAreNoFlags(t *testing.T) {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(flags)
	for _, s := range settings() {
		if want := !s.secret() && !s.structured(); (flags.Lookup(s.key) != nil) != want {
			t.Errorf("flag --%s: want %v", s.key, want)
		}
	}
}

func TestSettingsReachThePartsThatUseThem(t *testing.T) {
	c := Default()
	c.TrustedProxies = []string{"10.0.0.0/8", "::ffff:192.0.2.1"}
	c.TLS = TLS{Certificates: []Certificate{{"a.pem", "a.key"}}, ClientCAFile: "ca.pem", ClientAuth: "optional"}
	c.Listen.ProxyProtocol = true
	c.IdentityHeaders = []string{"X-User-ID"}
	c.Limits.MaxBodyBytes = 7
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")}

	engine := c.Engine()
	if engine.HealthPath != "/health" || !reflect.DeepEqual(engine.TrustedProxies, proxies) || engine.MaxHeaders != 200 || engine.MaxBodyBytes != 7 ||
		engine.BodyReadTimeout != time.Minute || !engine.AccessLog || !reflect.DeepEqual(engine.IdentityHeaders, c.IdentityHeaders) {
		t.Errorf("engine: %+v", engine)
	}
	server := c.Server()
	if server.ReadHeaderTimeout != 5*time.Second || server.IdleTimeout != 3*time.Minute || server.MaxHeaderBytes != 32768 || server.MaxStreams != 100 ||
		server.MaxConnectionsPerIP != 1024 || server.TLS.ClientCAFile != "ca.pem" || server.TLS.ClientAuth != "optional" || !server.ProxyProtocol || server.TLS.Certificates[0].KeyFile != "a.key" || !reflect.DeepEqual(server.TrustedProxies, proxies) {
		t.Errorf("server: %+v", server)
	}
	want := routing.Defaults{Timeout: 30 * time.Second, Connect: 2 * time.Second, Idle: 5 * time.Minute, Retries: 1}
	if got := c.RoutingDefaults(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for text, level := range map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		if got := (Log{Level: text}).SlogLevel(); got != level {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

func TestEveryExampleIsAGoodDocument(t *testing.T) {
	routes, err := filepath.Glob("routes/*.yaml")
	if err != nil || len(routes) == 0 {
		t.Fatal("no routes", err)
	}
	named := map[string]bool{}
	for _, name := range routes {
		value, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		spec, faults := routing.DecodeRoute(value)
		if faults != nil {
			t.Errorf("%s: %v", name, faults)
			continue
		}
		named[spec.Service] = true
	}
	services, err := filepath.Glob("services/*.yaml")
	if err != nil || len(services) == 0 {
		t.Fatal("no services", err)
	}
	for _, name := range services {
		value, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, faults := routing.DecodeService(value); faults != nil {
			t.Errorf("%s: %v", name, faults)
		}
		if base := strings.TrimSuffix(filepath.Base(name), ".yaml"); !named[base] {
			t.Errorf("%s: no route leads to it", name)
		}
	}
}
