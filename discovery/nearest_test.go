package discovery

import "testing"

func TestTheNearestWordIsTheOneThatWasMeant(t *testing.T) {
	words := []string{"routes", "services", "active"}
	for s, want := range map[string]string{
		"servces": "services", "Route": "routes", "rotues": "routes", "actve": "active", "routes": "routes",
		"testdata": "", "server": "", "docs": "", "": "", "scripts": "",
	} {
		if got := Nearest(s, words, 2); got != want {
			t.Errorf("%q is %q, want %q", s, got, want)
		}
	}
}
