package etcd

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func TestAFaultyConfigurationNamesItsKey(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"the default is good", func(*Config) {}, ""},
		{"no endpoint switches etcd off", func(c *Config) { *c = Config{} }, ""},
		{"an empty endpoint switches etcd off", func(c *Config) { *c = Config{Endpoints: []string{""}} }, ""},
		{"a slash at the end of the prefix is fine", func(c *Config) { c.Prefix = "/gw/" }, ""},
		{"an endpoint needs a scheme", func(c *Config) { c.Endpoints = []string{"127.0.0.1:2379"} },
			"etcd.endpoints[0]: must be http://HOST:PORT or https://HOST:PORT"},
		{"an endpoint needs a port", func(c *Config) { c.Endpoints = []string{"http://a:1", "http://etcd"} },
			"etcd.endpoints[1]: must be http://HOST:PORT or https://HOST:PORT"},
		{"an endpoint holds no password", func(c *Config) { c.Endpoints = []string{"http://u:canary@a:1"} },
			"etcd.endpoints[0]: must be http://HOST:PORT or https://HOST:PORT"},
		{"http and https do not mix", func(c *Config) { c.Endpoints = []string{"http://a:1", "https://b:1"} },
			"etcd.endpoints: must be all http or all https"},
		{"tls needs https", func(c *Config) { c.TLS.ServerName = "etcd" },
			"etcd.tls: is set, but no endpoint is https"},
		{"the prefix is a folder", func(c *Config) { c.Prefix = "sluice" },
			`etcd.prefix: "sluice" must start with / and name a folder, as /sluice`},
		{"the root is no prefix", func(c *Config) { c.Prefix = "/" },
			`etcd.prefix: "/" must start with / and name a folder, as /sluice`},
		{"a user needs a password", func(c *Config) { c.Username = "gw" },
			"etcd.password: is needed with etcd.username (or etcd.password_file)"},
		{"a password needs a user", func(c *Config) { c.Password = "canary" },
			"etcd.username: is needed with a password"},
		{"one password is enough", func(c *Config) { c.Username, c.Password, c.PasswordFile = "gw", "canary", "f" },
			"etcd.password_file: set either this or etcd.password"},
		{"a certificate needs its key", func(c *Config) {
			c.Endpoints, c.TLS.CertFile = []string{"https://a:1"}, "cert.pem"
		}, "etcd.tls.cert_file, etcd.tls.key_file: set both or neither"},
		{"every fault is told", func(c *Config) { c.Endpoints, c.Prefix = []string{"x"}, "" },
			"etcd.endpoints[0]: must be http://HOST:PORT or https://HOST:PORT\n" +
				`etcd.prefix: "" must start with / and name a folder, as /sluice`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Default()
			tt.change(&cfg)
			got := ""
			if err := cfg.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestAFileThatIsMissingNamesItsKey(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	junk := filepath.Join(t.TempDir(), "junk")
	writeFile(t, junk, "\n")
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"password_file", func(c *Config) { c.Username, c.PasswordFile = "gw", missing }, "etcd.password_file: "},
		{"an empty password_file", func(c *Config) { c.Username, c.PasswordFile = "gw", junk }, "etcd.password_file: "},
		{"ca_file", func(c *Config) { c.TLS.CAFile = missing }, "etcd.tls.ca_file: "},
		{"a ca_file without a certificate", func(c *Config) { c.TLS.CAFile = junk }, "etcd.tls.ca_file: "},
		{"cert_file", func(c *Config) { c.TLS.CertFile, c.TLS.KeyFile = missing, missing }, "etcd.tls.cert_file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := configFor("https://127.0.0.1:2379")
			tt.change(&cfg)
			if _, err := New(cfg, testLog(t)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s…", err, tt.want)
			}
		})
	}
}

func TestThePasswordIsNotPrinted(t *testing.T) {
	cfg := Default()
	cfg.Username, cfg.Password = "gw", "canary"
	outer := struct{ Etcd Config }{cfg}
	for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", outer), fmt.Sprintf("%s", outer)} {
		if strings.Contains(text, "canary") {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestARefusalNamesTheSettingToLookAt(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a wrong password":            {rpctypes.ErrAuthFailed, "etcd.password"},
		"no user":                     {rpctypes.ErrUserEmpty, "etcd.username"},
		"a user who may not read":     {rpctypes.ErrPermissionDenied, "below /gw"},
		"a certificate of another CA": {errors.New("authentication handshake failed: unknown authority"), "etcd.tls.ca_file"},
		"http where TLS is spoken":    {errors.New("error reading server preface: EOF"), "etcd.endpoints"},
		"no client certificate":       {errors.New("no connection in time: write: broken pipe"), "etcd.tls.cert_file"},
		"an etcd that is away":        {errors.New("connection refused"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := Config{Prefix: "/gw", Endpoints: []string{"https://etcd:2379"}}.advise(c.err)
			if !errors.Is(got, c.err) || (got != c.err) != (c.want != "") || !strings.Contains(got.Error(), c.want) {
				t.Errorf("got %v, want it to name %q", got, c.want)
			}
		})
	}
}
