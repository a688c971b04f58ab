package routing

import "testing"

func TestAPathSetFindsTheMostSpecificPattern(t *testing.T) {
	var s PathSet
	number := map[int]string{}
	for _, p := range []string{"/*", "/api/*", "/api/admin/*", "/api/:any/keys", "/api/admin", "/users/:id"} {
		n, err := s.Add(p)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := number[n]; ok {
			t.Errorf("%s has the number of %s", p, other)
		}
		number[n] = p
	}
	if a, _ := s.Add("/users/:name"); number[a] != "/users/:id" {
		t.Errorf("a pattern with another name for its parameter has the number of %q", number[a])
	}
	for path, want := range map[string]string{
		"/": "/*", "/x": "/*", "/api": "/api/*", "/api/": "/api/*", "/api/x": "/api/*", "/Api/x": "/*",
		"/api/admin": "/api/admin", "/api/admin/": "/api/admin/*", "/api/admin/x/y": "/api/admin/*", "/api/admin/keys": "/api/admin/*",
		"/api/x/keys": "/api/:any/keys", "/api/x/keys/": "/api/*", "//api//admin": "/api/admin", "/%61pi/admin": "/api/admin",
		"/users/7": "/users/:id", "/users/": "/*", "/api%2Fadmin": "/*",
	} {
		p, err := Normalize(path)
		if err != nil {
			t.Fatal(err)
		}
		n, ok := s.Find(p)
		if !ok || number[n] != want {
			t.Errorf("%s found %q (%t), want %q", path, number[n], ok, want)
		}
	}
	var none PathSet
	if _, ok := none.Find(Path{"/", "/"}); ok {
		t.Error("an empty set found something")
	}
	for _, bad := range []string{"", "api", "/a*", "/*/x", "/a/../b", "/:a/:a"} {
		if _, err := s.Add(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func BenchmarkPathSet(b *testing.B) {
	var s PathSet
	for _, p := range []string{"/*", "/api/*", "/api/admin/*", "/api/:any/keys"} {
		if _, err := s.Add(p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Find(Path{"/api/admin/dashboard", "/api/admin/dashboard"}); !ok {
			b.Fatal("not found")
		}
	}
}
