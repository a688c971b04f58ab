package routing

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxHost is the length of the longest host name without its trailing dot
// (RFC 1035 section 2.3.4).
const maxHost = 253

// parseHost reads a host of a route: "api.example.com", "*.example.com" or an
// IP address; lower case, without a trailing dot, IPv6 in brackets.
func parseHost(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")); err == nil && addr.Zone() == "" {
		if addr.Is6() {
			return "[" + addr.String() + "]", nil
		}
		return name, nil
	}
	labels := strings.TrimPrefix(name, "*.")
	switch {
	case name == "":
		return "", errors.New("must be a name; leave hosts out to match any")
	case name == "*":
		return "", errors.New(`"*" is written by leaving hosts out`)
	case strings.Contains(labels, "*"):
		return "", fmt.Errorf("%q: a wildcard stands for whole leading labels only, as in \"*.example.com\"", text)
	case strings.Contains(labels, ":"):
		return "", fmt.Errorf("%q: hosts are matched without their port: leave it out", text)
	case len(name) > maxHost:
		return "", fmt.Errorf("is longer than %d bytes", maxHost)
	}
	for label := range strings.SplitSeq(labels, ".") {
		if label == "" {
			return "", fmt.Errorf("%q holds an empty label", text)
		}
		for _, c := range label {
			if c > 0x7f {
				return "", fmt.Errorf("%q: names outside ASCII are written in punycode (xn--…)", text)
			}
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", fmt.Errorf("%q holds %q; a host name has letters, digits, \"-\", \"_\" and \".\"", text, c)
			}
		}
	}
	return name, nil
}

// hostKey writes the host of an authority into buf, lower case, without port
// and trailing dot, and returns it; it is empty where no route's host can be
// equal to it.
func hostKey(authority string, buf *[maxHost]byte) []byte {
	host := authority
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return nil
		}
		host = host[:end+1]
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if len(host) > maxHost {
		return nil
	}
	for i := range len(host) {
		c := host[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(host)]
}
