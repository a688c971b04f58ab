// Package test holds the checks that belong to no package: that the
// documentation's examples are true, and that imports point one way.
package test

import (
	"bufio"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/routing"
)

// example is one fenced block of a page.
type example struct {
	page, kind, text string
	line             int
}

// examples finds blocks such as ```yaml route.
func examples(t *testing.T) []example {
	t.Helper()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []example
	for _, page := range append(pages, "../README.md") {
		f, err := os.Open(page)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		var open *example
		for n := 1; lines.Scan(); n++ {
			line := lines.Text()
			switch {
			case open != nil && strings.HasPrefix(line, "```"):
				out = append(out, *open)
				open = nil
			case open != nil:
				open.text += line + "\n"
			case strings.HasPrefix(line, "```yaml "), strings.HasPrefix(line, "```json "):
				_, kind, _ := strings.Cut(line, " ")
				open = &example{page: filepath.Base(page), kind: kind, line: n}
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestEveryDocumentInTheDocsServes(t *testing.T) {
	kinds := map[string]discovery.Kind{
		"route": discovery.KindRoute, "service": discovery.KindService, "consumer": discovery.KindConsumer, "active": discovery.KindActive,
	}
	redis, err := store.New(store.Config{Address: "127.0.0.1:1", Timeout: time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	plugins := middleware.NewPlugins(middleware.NewRegistry(slog.New(slog.DiscardHandler), redis))
	for _, name := range []string{"SHOP_CLIENT_SECRET", "SLUICE_SESSION_SECRET", "INTROSPECTION_SECRET"} { // that examples name
		t.Setenv(name, "a secret of at least 32 bytes for the examples")
	}
	found := map[string]int{}
	all := examples(t)
	t.Chdir("..") // the files that examples name are named from there
	for _, e := range all {
		word, name, _ := strings.Cut(e.kind, " ")
		kind, ok := kinds[word]
		if word == "plugin" {
			kind, ok = discovery.KindPlugin, true
		}
		if !ok {
			t.Errorf("%s:%d: a block of unknown kind %q", e.page, e.line, e.kind)
			continue
		}
		if name == "" {
			name = "example"
		}
		found[e.page]++
		doc := &discovery.Document{Key: e.page, Kind: kind, Name: name, Source: discovery.SourceFile, Value: []byte(e.text)}
		for _, p := range routing.Check(plugins, []*discovery.Document{doc}) {
			t.Errorf("%s:%d: %s", e.page, e.line, p.Message)
		}
	}
	for _, page := range []string{"routes.md", "services.md", "plugins.md"} {
		if found[page] == 0 {
			t.Errorf("%s has no example that a test reads", page)
		}
	}
}

func TestEveryMakeTargetInTheDocsExists(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile("(?m)(?:^|`)make ([a-z][a-z0-9-]*)")
	found := 0
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range target.FindAllStringSubmatch(string(text), -1) {
			found++
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: make %s is no target of the Makefile", filepath.Base(page), m[1])
			}
		}
	}
	if found == 0 {
		t.Error("no page names a target")
	}
}

func TestEveryLinkInTheDocsLeadsSomewhere(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("../docs/adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	for _, page := range append(append(pages, decisions...), "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", page, m[1])
			}
		}
	}
}

// TestImportsPointOneWay keeps the table of docs/architecture.md true.
func TestImportsPointOneWay(t *testing.T) {
	const module = "github.com/sluice-gateway/sluice/"
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "../...").Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	allowed := map[string][]string{
		"discovery":               {},
		"discovery/consul":        {"discovery"},
		"discovery/etcd":          {"discovery"},
		"discovery/file":          {"discovery"},
		"discovery/state":         {"discovery"},
		"discovery/discoverytest": {"discovery"},
		"routing/balance":         {"discovery"},
		"routing":                 {"discovery", "routing/balance"},
		"proxy":                   {"routing", "routing/balance", "discovery", "proxy/wire", "proxy/tcp"},
		"proxy/wire":              {"proxy/tcp"},
		"proxy/tcp":               {},
		"proxy/healthcheck":       {"routing/balance"},
		"middleware": {"routing", "middleware/store", "middleware/remote", "middleware/passwords", "middleware/bots", "middleware/session",
			"middleware/limit", "middleware/keys", "middleware/memo", "middleware/http1", "proxy/tcp"},
		"middleware/http1":           {},
		"middleware/bots":            {},
		"middleware/passwords":       {},
		"middleware/session":         {"middleware/store", "middleware/remote"},
		"middleware/limit":           {"middleware/store"},
		"middleware/store":           {},
		"middleware/store/storetest": {"middleware/store"},
		"middleware/remote":          {},
		"middleware/keys":            {"middleware/remote"},
		"middleware/memo":            {},
		"middleware/plugintest":      {"discovery", "routing", "routing/balance", "middleware", "middleware/store"},
		"admin":                      {"discovery", "routing", "routing/balance"},
	}
	clients := map[string][]string{
		"github.com/hashicorp/consul/api": {"discovery/consul"},
		"go.etcd.io/etcd/client/v3":       {"discovery/etcd", "test/testenv"},
		"github.com/redis/go-redis/v9":    {"middleware", "middleware/store", "middleware/limit", "middleware/session", "scripts/drill"},
		"github.com/gin-gonic/gin":        {"middleware", "middleware/plugintest", "admin", "cmd/sluice"},
	}
	checked := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		for _, imported := range fields[1:] {
			if owners, ok := clients[imported]; ok && !slices.Contains(owners, pkg) {
				t.Errorf("%s imports %s; only %v may", pkg, imported, owners)
			}
			inner, ours := strings.CutPrefix(imported, module)
			if may, ok := allowed[pkg]; ok && ours && !slices.Contains(may, inner) {
				t.Errorf("%s imports %s; it may import %v", pkg, inner, may)
			}
			if ours && inner == "configs" && pkg != "cmd/sluice" {
				t.Errorf("%s imports configs; only cmd may", pkg)
			}
		}
		if _, ok := allowed[pkg]; ok {
			checked++
		}
	}
	if checked != len(allowed) {
		t.Errorf("%d packages of %d were there to check", checked, len(allowed))
	}
}
