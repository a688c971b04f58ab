package routing

import (
	"errors"
	"fmt"
	"strings"
)

// ErrPath is wrapped by every error of Normalize: the request is at fault
// (400).
var ErrPath = errors.New("path refused")

// Classes of bytes in a path, RFC 3986 section 2 and 3.3.
const (
	classEscape     uint8 = iota // needs an escape
	classUnreserved              // an escape of it is needless
	classReserved                // sub-delims, ":" and "@": plain or escaped, as sent
	classSlash
	classRefused // never in a path as sent
)

// pathClass is the class of every byte.
var pathClass = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c <= ' ' || c == 0x7f || c == '\\' || c == '#' || c == '?':
			t[c] = classRefused
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9',
			c == '-' || c == '.' || c == '_' || c == '~':
			t[c] = classUnreserved
		case strings.IndexByte("!$&'()*+,;=:@", byte(c)) >= 0:
			t[c] = classReserved
		case c == '/':
			t[c] = classSlash
		}
	}
	return t
}()

// Normalize makes the path of a request target, as sent and without its
// query, safe to match and to forward. It is idempotent: normalising
// Path.Forward gives the same Path. A path with nothing to do costs one scan
// and no allocation.
//
//   - An empty path is "/". Any other path starts with "/".
//   - Escapes of unreserved characters are decoded; those that stay are
//     upper case (RFC 3986 section 6.2.2). Escapes of reserved characters
//     ("%40", "%3B") are forwarded as sent, because RFC 3986 lets a server
//     tell them from the character, but Match holds the plain character: an
//     instance that decodes its path must not see a route's path that the
//     route did not get.
//   - Bytes that no path may hold (as sent by browsers: "|", "^", non-ASCII)
//     are escaped.
//   - Dot segments are removed by RFC 3986 section 5.2.4, which stops at the
//     root.
//   - "//" stays in Forward and is folded in Match.
//   - "%2F" stays data.
//
// Refused, with an error that wraps ErrPath: a malformed escape, NUL, a space
// or control byte as sent, "#", "?", a backslash plain or escaped, and a path
// that holds a dot segment once decoded as often as it can be, with "%2F" and
// "%5C" taken for separators. A dot segment with parameters ("..;x") counts as
// one, because servlet containers drop the parameters first.
func Normalize(raw string) (Path, error) {
	if raw == "" {
		return Path{"/", "/"}, nil
	}
	if raw[0] != '/' {
		return Path{}, fmt.Errorf("%w: it does not begin with \"/\"", ErrPath)
	}
	if isNormal(raw) {
		return Path{raw, raw}, nil
	}
	return normalizeSlowly(raw)
}

// isNormal says whether Normalize has nothing to do for a path that begins
// with a slash.
func isNormal(raw string) bool {
	start := true // of a segment
	for i := 1; i < len(raw); i++ {
		c := raw[i]
		switch pathClass[c] {
		case classUnreserved:
			if start && c == '.' && dotSegment(raw[i:]) {
				return false
			}
			start = false
		case classReserved:
			start = false
		case classSlash:
			if start {
				return false
			}
			start = true
		default:
			return false
		}
	}
	return true
}

// dotSegment says whether s begins with a segment that is "." or "..", with
// or without parameters.
func dotSegment(s string) bool {
	n := 0
	for n < len(s) && s[n] == '.' {
		n++
	}
	return (n == 1 || n == 2) && (n == len(s) || s[n] == '/' || s[n] == ';' || s[n] == '\\')
}

func normalizeSlowly(raw string) (Path, error) {
	escaped, err := unifyEscapes(raw)
	if err != nil {
		return Path{}, err
	}
	forward := removeDotSegments(escaped)
	if hidesDotSegment(forward) {
		return Path{}, fmt.Errorf("%w: it holds a dot segment once decoded", ErrPath)
	}
	match := forward
	if folds(forward) {
		match = fold(forward)
	}
	return Path{forward, match}, nil
}

// unifyEscapes decodes needless escapes, writes the others in upper case and
// escapes what must not stand plain.
func unifyEscapes(raw string) (string, error) {
	var b strings.Builder
	b.Grow(len(raw) + 8)
	for i := 0; i < len(raw); i++ {
		c, wasEscaped := raw[i], false
		if c == '%' {
			v, ok := unescape(raw[i:])
			if !ok {
				return "", fmt.Errorf("%w: a %% is not followed by two hexadecimal digits", ErrPath)
			}
			c, wasEscaped = v, true
			i += 2
		}
		class := pathClass[c]
		switch {
		case c == 0:
			return "", fmt.Errorf("%w: it holds NUL", ErrPath)
		case c == '\\':
			return "", fmt.Errorf("%w: it holds a backslash", ErrPath)
		case class == classRefused && !wasEscaped:
			return "", fmt.Errorf("%w: it holds the byte %q unescaped", ErrPath, c)
		case class == classUnreserved,
			!wasEscaped && (class == classReserved || class == classSlash):
			b.WriteByte(c)
		default:
			writeEscape(&b, c)
		}
	}
	return b.String(), nil
}

// unescape reads the escape that s begins with.
func unescape(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	hi, ok1 := hexDigit(s[1])
	lo, ok2 := hexDigit(s[2])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func writeEscape(b *strings.Builder, c byte) {
	const digits = "0123456789ABCDEF"
	b.WriteByte('%')
	b.WriteByte(digits[c>>4])
	b.WriteByte(digits[c&15])
}

// removeDotSegments is RFC 3986 section 5.2.4 for a path that begins with a
// slash. ".." takes away one segment, an empty one too.
func removeDotSegments(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	out := make([]byte, 0, len(path))
	for rest := path; rest != ""; {
		// rest begins with the slash before the next segment.
		end := strings.IndexByte(rest[1:], '/') + 1
		if end == 0 {
			end = len(rest)
		}
		segment := rest[1:end]
		last := end == len(rest)
		switch segment {
		case ".", "..":
			if segment == ".." {
				out = out[:lastSlash(out)]
			}
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return string(out)
}

// lastSlash is the place of the last slash in b, or 0.
func lastSlash(b []byte) int {
	for i := len(b) - 1; i > 0; i-- {
		if b[i] == '/' {
			return i
		}
	}
	return 0
}

// hidesDotSegment says whether path, decoded until nothing is left to decode,
// holds a dot segment between slashes or backslashes.
//
// One pass is enough, and keeps a path of nested escapes from costing its
// length squared: whenever the last three bytes written are an escape they
// are replaced by what it stands for, which may complete the next.
func hidesDotSegment(path string) bool {
	if !strings.Contains(path, "%") && !strings.Contains(path, ";") {
		return false // removeDotSegments saw all there is
	}
	out := make([]byte, 0, len(path))
	for i := range len(path) {
		out = append(out, path[i])
		for n := len(out); n >= 3 && out[n-3] == '%'; n = len(out) {
			v, ok := unescape(string(out[n-3:]))
			if !ok {
				break
			}
			out = append(out[:n-3], v)
		}
	}
	start := true
	for i, c := range out {
		if start && c == '.' && dotSegment(string(out[i:min(i+3, len(out))])) {
			return true
		}
		start = c == '/' || c == '\\'
	}
	return false
}

// folds says whether the Match form of a normalised path differs from it.
func folds(path string) bool {
	if strings.Contains(path, "//") {
		return true
	}
	for {
		i := strings.IndexByte(path, '%')
		if i < 0 {
			return false
		}
		if v, _ := unescape(path[i:]); pathClass[v] == classReserved {
			return true
		}
		path = path[i+3:]
	}
}

// fold makes the Match form of a normalised path: "//" is one slash, and
// reserved characters stand plain.
func fold(path string) string {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if v, _ := unescape(path[i:]); pathClass[v] == classReserved {
				b.WriteByte(v)
			} else {
				b.WriteString(path[i : i+3])
			}
			i += 2
			continue
		}
		if c == '/' && i > 0 && path[i-1] == '/' {
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
