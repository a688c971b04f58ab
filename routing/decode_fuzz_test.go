package routing

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// addFiles gives the fuzzer what the tests of one kind know.
func addFiles(f *testing.F, kind string) {
	f.Helper()
	files, err := filepath.Glob("testdata/*/*." + kind + ".*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		value, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
}

// checkDecoded checks what holds for any bytes: faults or a spec, and never
// both; every fault names its field; a spec survives being written out.
func checkDecoded(t *testing.T, kind string, value []byte) {
	t.Helper()
	spec, faults := decodeFile(kind, value)
	if (spec == nil) == (faults == nil) {
		t.Fatalf("got %v and %v", spec, faults)
	}
	checkFaults(t, faults)
	if spec != nil {
		checkCanonical(t, kind, spec)
	}
}

func FuzzDecodeRoute(f *testing.F) {
	addFiles(f, "route")
	f.Add([]byte(`{"path":"/orders/*","service":"orders","plugins":{"a":{"b":[1,1.5,1e17,-0.0,"\u0000"]}}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		checkDecoded(t, "route", value)
		if spec, faults := DecodeRoute(value); faults == nil {
			if _, faults := compileMatcher(spec); faults != nil {
				t.Fatalf("a route without faults does not compile: %v", faults)
			}
		}
	})
}

func FuzzDecodeService(f *testing.F) {
	addFiles(f, "service")
	f.Fuzz(func(t *testing.T, value []byte) { checkDecoded(t, "service", value) })
}

func FuzzParseActive(f *testing.F) {
	for _, s := range []string{"green", " blue = 90 , green=10\n", "green=5", "blue=0,green=007", "a,b", "=1", "a=1,a=2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseActive(text)
		if (a == nil) == (err == nil) {
			t.Fatalf("got %v and %v", a, err)
		}
		if err != nil {
			if hasControl(err.Error()) || !strings.Contains(err.Error(), "accepted is") {
				t.Fatalf("error %q", err)
			}
			return
		}
		again, err := ParseActive(a.String())
		if err != nil || again.String() != a.String() {
			t.Fatalf("%q: wrote %q, read %v, %v", text, a, again, err)
		}
	})
}

func FuzzRouteFromTags(f *testing.F) {
	f.Add("sluice.path=/orders/*\nsluice.host=a.example.com,b.example.com\nsluice.methods=GET\nblue")
	f.Add(`sluice.route={"path":"/orders/*"}`)
	f.Add("blue\ngreen")
	addTagFiles(f)
	f.Fuzz(func(t *testing.T, text string) {
		tags := strings.Split(text, "\n")
		spec, faults := RouteFromTags("orders", "sluice.", tags)
		tagged := false
		for _, tag := range tags {
			tagged = tagged || strings.HasPrefix(tag, "sluice.")
		}
		if tagged == (spec == nil && faults == nil) || spec != nil && faults != nil {
			t.Fatalf("got %v and %v", spec, faults)
		}
		checkFaults(t, faults)
		for _, fault := range faults {
			if !strings.HasPrefix(fault.Field, "sluice.") || fault.Code != ProblemTag {
				t.Fatalf("fault %#v", fault)
			}
		}
		if spec != nil {
			if spec.Service != "orders" {
				t.Fatalf("the route leads to %q", spec.Service)
			}
			checkCanonical(t, "route", spec)
		}
	})
}

// addTagFiles is addFiles for a fuzzer of text.
func addTagFiles(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/bad/*.tags.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		value, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		_, rest := wanted(value)
		f.Add(string(rest))
	}
}

func BenchmarkDecodeRoute(b *testing.B) {
	documents := map[string]string{
		"smallest": `{"path":"/orders/*","service":"orders"}`,
		"ordinary": `{"hosts":["api.example.com"],"path":"/orders/:id/*rest","methods":["GET","POST"],"headers":{"X-Version":"2"},` +
			`"service":"orders","strip_prefix":"/orders","timeout":"10s","retries":2,"plugins":{"headers":{"request":{"set":{"X-A":"b"}}}}}`,
		"yaml": "path: /orders/*\nservice: orders\n",
	}
	for name, doc := range documents {
		b.Run(name, func(b *testing.B) {
			value := []byte(doc)
			b.ReportAllocs()
			for b.Loop() {
				if _, faults := DecodeRoute(value); faults != nil {
					b.Fatal(faults)
				}
			}
		})
	}
}
