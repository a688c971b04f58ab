package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/admin"
	"github.com/sluice-gateway/sluice/routing"
)

func TestAStatusSaysWhetherItsGatewayHasAppliedASwitch(t *testing.T) {
	for name, c := range map[string]struct {
		status admin.Status
		routed bool
		reason string
	}{
		"it serves the choice":              {admin.Status{Revision: 7, Active: map[string]string{"orders": "green"}}, true, ""},
		"it is behind":                      {admin.Status{Revision: 6, Active: map[string]string{"orders": "green"}}, false, "is at revision 6"},
		"it has no route to the service":    {admin.Status{Revision: 7, Active: map[string]string{"users": "green"}}, false, ""},
		"it serves another":                 {admin.Status{Revision: 7, Active: map[string]string{"orders": "blue"}}, true, "serves blue"},
		"it was told another since":         {admin.Status{Revision: 8, Active: map[string]string{"orders": "blue"}}, true, ""},
		"it holds the flip":                 {admin.Status{Revision: 7, Held: []routing.Held{{Service: "orders", Reason: "none passes"}}}, true, "holds it: none passes"},
		"its registry has not answered yet": {admin.Status{Revision: 7, Undecided: []string{"orders"}}, true, "waits for an answer about the instances of orders"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := json.Marshal(c.status)
			if err != nil {
				t.Fatal(err)
			}
			if routed, reason := applied(data, "orders", "green", 7); routed != c.routed || reason != c.reason {
				t.Errorf("got %v %q, want %v %q", routed, reason, c.routed, c.reason)
			}
		})
	}
	if _, reason := applied([]byte("nonsense"), "orders", "green", 7); !strings.Contains(reason, "cannot be read") {
		t.Errorf("a broken status: %q", reason)
	}
}
