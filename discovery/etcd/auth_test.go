package etcd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestE8TheWatchOutlivesTokensAndRestarts(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t, testenv.EtcdArgs("--auth-token-ttl=2"))
	e.EnableAuth("root-password")
	e.AddUser("gateway", "canary-password", "/sluice/")
	e.Put("/sluice/routes/a", "1")
	file := filepath.Join(t.TempDir(), "password")
	writeFile(t, file, "canary-password\n")
	cfg := configFor(e.Endpoint)
	cfg.Username, cfg.PasswordFile = "gateway", file
	_, sink := follow(t, cfg)
	awaitValue(t, sink, "/sluice/routes/a", "1")

	expired := time.Now().Add(4 * time.Second)
	testenv.Eventually(t, patience, "the token to expire", func() bool { return time.Now().After(expired) })
	e.Put("/sluice/routes/a", "2")
	awaitValue(t, sink, "/sluice/routes/a", "2")

	e.Restart()
	e.Put("/sluice/routes/a", "3")
	awaitValue(t, sink, "/sluice/routes/a", "3")

	// A password that changes is read from its file at the next login.
	e.SetPassword("gateway", "second-password")
	writeFile(t, file, "second-password\n")
	e.Restart()
	e.Put("/sluice/routes/a", "4")
	awaitValue(t, sink, "/sluice/routes/a", "4")
	for _, err := range sink.Contacts() {
		if err != nil && strings.Contains(err.Error(), "password\"") {
			t.Errorf("an error holds a password: %v", err)
		}
	}
}

func TestE8AWrongPasswordDoesNotLoopHot(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	e.EnableAuth("root-password")
	e.AddUser("gateway", "right", "/sluice/")
	file := filepath.Join(t.TempDir(), "password")
	writeFile(t, file, "canary-wrong")
	cfg := configFor(e.Endpoint)
	cfg.Username, cfg.PasswordFile = "gateway", file
	_, sink := follow(t, cfg)
	from := 0
	for range 3 {
		from = sink.AwaitContact(t, patience, "a refusal", from, failed)
	}
	for _, err := range sink.Contacts() {
		if !denied(err) {
			t.Errorf("not taken as a refusal: %v", err)
		}
		if strings.Contains(err.Error(), "canary-wrong") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
	e.Put("/sluice/routes/a", "1")
	writeFile(t, file, "right")
	awaitValue(t, sink, "/sluice/routes/a", "1")
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
