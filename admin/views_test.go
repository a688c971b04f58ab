package admin

import (
	"strings"
	"testing"
)

func TestProblemsAreFoundByKeyAndByName(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	for name, want := range map[string]int{"/sluice/routes/broken": 1, "broken": 1, "orders": 0, "routes": 0} {
		if items := r.items("/api/v1/problems?name=" + name); len(items) != want {
			t.Errorf("%s: %v", name, items)
		}
	}
	for key, want := range map[string]string{
		"/sluice/routes/a.json": "a.json", "routes/a.yaml": "a", "active/orders": "orders", "active/a.b": "a.b",
		"consul:orders": "orders",
	} {
		if got := nameIn(key); got != want {
			t.Errorf("%s is named %q, want %q", key, got, want)
		}
	}
}

func TestAnInstanceThatWasAlwaysHealthyIsSoSinceNoTime(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	if body := r.get("/api/v1/instances").Body.String(); strings.Contains(body, `"since"`) {
		t.Errorf("got %s", body)
	}
}
