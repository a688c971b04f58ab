package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestSwitchWritesTheKeyAndSaysWhatItCannotDo(t *testing.T) {
	etcd := testenv.StartEtcd(t)
	etcd.EnableAuth("r1ght")
	config := func(password string) string {
		path := filepath.Join(t.TempDir(), "sluice.yaml")
		yaml := "etcd: {endpoints: [\"" + etcd.Endpoint + "\"], username: root, password: " + password + "}\n"
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := config("r1ght")
	out, errs, code := sluice(t, "switch", "orders", "blue=90, green=10", "-c", good)
	if code != 0 || !strings.HasPrefix(out, "/sluice/active/orders = blue=90,green=10 at revision ") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	value, _ := etcd.Get("/sluice/active/orders")
	equal(t, "the key", value, "blue=90,green=10")

	out, errs, code = sluice(t, "switch", "orders", "green", "--wait", "--timeout", "5s", "-c", good)
	if code != 1 || !strings.Contains(out, "= green at revision") || !strings.Contains(errs, "written, but no live gateway keeps a status key") {
		t.Errorf("without a gateway: exit %d\n%s%s", code, out, errs)
	}

	out, errs, code = sluice(t, "switch", "orders", "red", "-c", config("wr0ng"))
	if code != 1 || out != "" || !strings.Contains(errs, "etcd at "+etcd.Endpoint+": ") || !strings.Contains(errs, "denied") || strings.Contains(errs, "wr0ng") {
		t.Errorf("with a wrong password: exit %d\n%s%s", code, out, errs)
	}
	value, _ = etcd.Get("/sluice/active/orders")
	equal(t, "the key after it", value, "green")
}
