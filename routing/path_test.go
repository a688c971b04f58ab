package routing

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	for _, tc := range []struct{ name, raw, forward, match string }{
		{"an empty path is the root", "", "/", "/"},
		{"the root stays", "/", "/", "/"},
		{"a clean path stays", "/orders/1-a_b.c~d", "/orders/1-a_b.c~d", "/orders/1-a_b.c~d"},
		{"reserved characters stay plain", "/a!$&'()*+,;=:@b", "/a!$&'()*+,;=:@b", "/a!$&'()*+,;=:@b"},
		{"dot files are no dot segments", "/.well-known/..a/...", "/.well-known/..a/...", "/.well-known/..a/..."},
		{"a dot segment goes", "/a/./b", "/a/b", "/a/b"},
		{"two dots take the segment before", "/a/b/../c", "/a/c", "/a/c"},
		{"dot segments at the end leave their slash", "/a/b/..", "/a/", "/a/"},
		{"a dot at the end leaves its slash", "/a/.", "/a/", "/a/"},
		{"dot segments stop at the root", "/../../a", "/a", "/a"},
		{"two dots take an empty segment", "/a//../b", "/a/b", "/a/b"},
		{"double slashes are kept and folded", "//a///b//", "//a///b//", "/a/b/"},
		{"needless escapes are decoded", "/%61dmin/%7Ex%2D", "/admin/~x-", "/admin/~x-"},
		{"escaped dots are dots", "/a/%2e%2E/b/%2e", "/b/", "/b/"},
		{"escapes that stay are upper case", "/caf%c3%a9%2fx", "/caf%C3%A9%2Fx", "/caf%C3%A9%2Fx"},
		{"bytes outside ASCII are escaped", "/café", "/caf%C3%A9", "/caf%C3%A9"},
		{"what browsers leave plain is escaped", "/a|b^c{d}\"<>`[]", "/a%7Cb%5Ec%7Bd%7D%22%3C%3E%60%5B%5D", "/a%7Cb%5Ec%7Bd%7D%22%3C%3E%60%5B%5D"},
		{"reserved escapes go on as sent and match as characters", "/%40a%3a%2B", "/%40a%3A%2B", "/@a:+"},
		{"an escaped slash is data", "/a%2fb", "/a%2Fb", "/a%2Fb"},
		{"an escaped percent is data", "/100%25", "/100%25", "/100%25"},
		{"an escaped hash or question mark is data", "/a%23b%3F", "/a%23b%3F", "/a%23b%3F"},
		{"dots inside a segment with an escaped slash are no dot segment", "/a%2F..b", "/a%2F..b", "/a%2F..b"},
		{"parameters of a segment stay", "/a;v=1/b", "/a;v=1/b", "/a;v=1/b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Normalize(tc.raw)
			if err != nil {
				t.Fatalf("Normalize(%q): %v", tc.raw, err)
			}
			if want := (Path{tc.forward, tc.match}); got != want {
				t.Fatalf("Normalize(%q) = %q, want %q", tc.raw, got, want)
			}
			again, err := Normalize(got.Forward)
			if err != nil || again != got {
				t.Fatalf("Normalize(%q) = %q, %v: not the same again", got.Forward, again, err)
			}
		})
	}
}

func TestNormalizeRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"asterisk form":                       "*",
		"a path without its slash":            "pkg.Svc/M",
		"an absolute URL":                     "http://a.test/",
		"an escape cut short":                 "/a%4",
		"an escape that is none":              "/a%zz",
		"a lone percent sign":                 "/%",
		"NUL as sent":                         "/a\x00",
		"NUL escaped":                         "/a%00b",
		"a fragment":                          "/public/x#/../admin",
		"a query":                             "/a?b",
		"a backslash":                         `/public\..\admin`,
		"a backslash escaped":                 "/public%5c..%5Cadmin",
		"a space":                             "/a b",
		"a control byte":                      "/a\nb",
		"DEL":                                 "/a\x7f",
		"an escaped slash after dots":         "/public/..%2fadmin",
		"an escaped slash before dots":        "/public/a%2F../admin",
		"dots escaped twice":                  "/public/%252e%252e/admin",
		"dots and slash escaped twice":        "/public/%252e%252e%252fadmin",
		"dots escaped five times":             "/public/%252525252e./admin",
		"escapes within escapes":              "/public/%25%32%65%25%32%65/admin",
		"a backslash escaped twice":           "/public/..%255cadmin",
		"one dot with an escaped slash":       "/public/.%2Fadmin",
		"dots with a parameter":               "/public/..;/admin",
		"dots with a parameter, value":        "/public/..;x=1/admin",
		"dots with an escaped parameter":      "/public/..%3B/admin",
		"escaped dots with a parameter":       "/public/%2e%2e;/admin",
		"one dot with a parameter at the end": "/public/.;",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Normalize(raw)
			if !errors.Is(err, ErrPath) {
				t.Fatalf("Normalize(%q) = %q, %v; want ErrPath", raw, got, err)
			}
		})
	}
}

func TestNormalizeCleanPathAllocatesNothing(t *testing.T) {
	for _, raw := range []string{"/", "/orders/12345/items", "/.well-known/acme", "/v1/users:batch", ""} {
		if n := testing.AllocsPerRun(100, func() { _, _ = Normalize(raw) }); n != 0 {
			t.Errorf("Normalize(%q) allocates %v times", raw, n)
		}
	}
}

// refusedByContract is the contract's list of refusals, written with other
// means than Normalize: decoding over and over.
func refusedByContract(raw string) bool {
	if raw == "" {
		return false
	}
	if raw[0] != '/' || strings.ContainsAny(raw, "\\#?\x7f") || strings.Contains(strings.ToLower(raw), "%5c") || strings.Contains(raw, "%00") {
		return true
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' }) {
		return true
	}
	_, err := url.PathUnescape(raw)
	return err != nil
}

// fullyDecoded decodes until nothing changes; what is no escape stands for
// itself.
func fullyDecoded(s string) string {
	for {
		var b strings.Builder
		for i := 0; i < len(s); i++ {
			if i+3 <= len(s) && s[i] == '%' {
				if v, err := url.PathUnescape(s[i : i+3]); err == nil {
					b.WriteString(v)
					i += 2
					continue
				}
			}
			b.WriteByte(s[i])
		}
		if b.String() == s {
			return s
		}
		s = b.String()
	}
}

// upstreamSegments is the path as an instance sees it that decodes once,
// splits at "/", merges "//" and resolves dot segments.
func upstreamSegments(path string) []string {
	var out []string
	for part := range strings.SplitSeq(path, "/") {
		seg, err := url.PathUnescape(part)
		switch {
		case err != nil || seg == "" || seg == ".":
		case seg == "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, seg)
		}
	}
	return out
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{
		"", "/", "*", "/a/../b", "//a//b", "/%61dmin/x", "/public/../admin/x", "/public/%2e%2e/admin", "/public/..%2fadmin",
		"/public/%252e%252e%252fadmin", "/a%00", "/%40x", "/café", "/admin%2fx", "/admin//x", "/public//../admin/x",
		"/..;/admin", "/ADMIN/x", "/%2561dmin/x", "/%%32%65", "/a%2%35b",
	} {
		f.Add(s)
	}
	table := tableOf(f, RouteSpec{Path: "/admin/*"}, RouteSpec{Path: "/*"})
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := Normalize(raw)
		if err != nil {
			if !refusedByContract(raw) && !holdsDots(fullyDecoded(raw)) {
				t.Fatalf("Normalize(%q) refuses what the contract does not: %v", raw, err)
			}
			return
		}
		if refusedByContract(raw) {
			t.Fatalf("Normalize(%q) = %q: to be refused", raw, p)
		}
		if again, err := Normalize(p.Forward); err != nil || again != p {
			t.Fatalf("Normalize(%q) = %q, then %q, %v", raw, p, again, err)
		}
		if holdsDots(fullyDecoded(p.Forward)) {
			t.Fatalf("Normalize(%q) = %q holds a dot segment once decoded", raw, p)
		}
		for _, c := range []byte(p.Forward) {
			if c <= ' ' || c >= 0x7f || strings.IndexByte("\\#?\"<>^`{|}[]", c) >= 0 {
				t.Fatalf("Normalize(%q) = %q: no request target", raw, p)
			}
		}
		if strings.Contains(p.Match, "//") || p.Match[0] != '/' {
			t.Fatalf("Normalize(%q) = %q: not folded", raw, p)
		}

		// What the instance makes of the path it gets is what the route was
		// chosen by.
		seen := upstreamSegments(p.Forward)
		var m Match
		table.Match(&Request{Method: "GET", Path: p}, &m)
		if admin := len(seen) > 0 && seen[0] == "admin"; admin != (m.Route.Name == "r0") {
			t.Fatalf("%q is forwarded as %q, which an instance reads as %q, by route %s", raw, p.Forward, seen, m.Route.Spec.Path)
		}
	})
}

// holdsDots says whether a decoded path holds a dot segment, parameters put
// aside.
func holdsDots(decoded string) bool {
	for _, seg := range strings.FieldsFunc(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
		if seg, _, _ = strings.Cut(seg, ";"); seg == "." || seg == ".." {
			return true
		}
	}
	return false
}

func BenchmarkNormalize(b *testing.B) {
	for name, raw := range map[string]string{
		"clean":   "/api/v1/orders/1234567/items/89",
		"escaped": "/caf%c3%a9/%61/../menu",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = Normalize(raw)
			}
		})
	}
}
