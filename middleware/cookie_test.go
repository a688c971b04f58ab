package middleware

import (
	"net/http"
	"reflect"
	"testing"
)

func TestOwnCookiesAreTakenOutOfTheRequest(t *testing.T) {
	own := []string{"__Host-s"}
	for _, c := range []struct {
		name  string
		lines []string
		rest  []string
		taken []cookie
	}{
		{"none", nil, nil, nil},
		{"only others, as they were sent", []string{"a=1;b=2"}, []string{"a=1;b=2"}, nil},
		{"alone", []string{"__Host-s=x"}, nil, []cookie{{"__Host-s", "x"}}},
		{"among others", []string{"a=1; __Host-s=x; b=2"}, []string{"a=1; b=2"}, []cookie{{"__Host-s", "x"}}},
		{"with what goes on after a dash", []string{"__Host-s=x; __Host-s-abc=y"}, nil,
			[]cookie{{"__Host-s", "x"}, {"__Host-s-abc", "y"}}},
		{"names that only begin alike", []string{"__Host-s2=x; __host-s=y"}, []string{"__Host-s2=x; __host-s=y"}, nil},
		{"on several lines", []string{"a=1", "__Host-s=x", "b=2; __Host-s=y"}, []string{"a=1", "b=2"},
			[]cookie{{"__Host-s", "x"}, {"__Host-s", "y"}}},
		{"with spaces around", []string{" __Host-s = x ;a=1"}, []string{"a=1"}, []cookie{{"__Host-s", "x"}}},
		{"without a value", []string{"__Host-s; a"}, []string{"a"}, []cookie{{"__Host-s", ""}}},
		{"with a value that holds its name", []string{"a=__Host-s=x"}, []string{"a=__Host-s=x"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{}
			if c.lines != nil {
				h["Cookie"] = c.lines
			}
			if got := takeCookies(h, own); !reflect.DeepEqual(got, c.taken) || !reflect.DeepEqual([]string(h["Cookie"]), c.rest) {
				t.Errorf("took %q and left %q, want %q and %q", got, h["Cookie"], c.taken, c.rest)
			}
		})
	}
}
