package routing

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// acceptHost accepts what a route's hosts may be.
func acceptHost(s string) string {
	const accepted = "; accepted are names such as api.example.com and *.example.com"
	if strings.Contains(s, "/") {
		return quoted(s) + " holds a scheme or path" + accepted
	}
	host, err := parseHost(s)
	switch {
	case err != nil:
		return err.Error() + accepted
	case host[0] == '[':
		return ""
	}
	return acceptHostname(strings.TrimPrefix(host, "*."))
}

// acceptHostname accepts a DNS name or an IPv4 address.
func acceptHostname(s string) string {
	const accepted = "; accepted are labels of letters, digits, - and _, with dots between"
	if s == "" || len(s) > 253 {
		return quoted(s) + " is not a host name of 1 to 253 characters"
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return quoted(s) + " has a label that is empty or longer than 63 characters" + accepted
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return quoted(s) + " has a label that begins or ends with -" + accepted
		}
		for i := range len(label) {
			if label[i] >= 0x80 {
				return quoted(s) + " is not ASCII; write an international name in its xn-- form (punycode)"
			}
			if !isAlphanumeric(label[i]) && label[i] != '-' && label[i] != '_' {
				return quoted(s) + " is not a host name" + accepted
			}
		}
	}
	return ""
}

// acceptForwardedHost accepts a route's host field.
func acceptForwardedHost(s string) string {
	if s == "preserve" || s == "service" {
		return ""
	}
	name, port, hasPort := strings.Cut(s, ":")
	if acceptHostname(name) != "" || hasPort && !validPort(port) {
		return quoted(s) + " is not a host; accepted are preserve, service, or a name such as orders.internal, with or without a port"
	}
	return ""
}

// ForbiddenAddress says whether no instance may have this address, because
// only the machine's own surroundings answer there: link-local addresses
// (the metadata services of clouds among them), the unspecified address and
// multicast. Loopback is allowed: services beside the gateway on one host are
// an ordinary set-up, and whoever may write routes may reach them.
func ForbiddenAddress(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() ||
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) ||
		a == netip.MustParseAddr("fd00:ec2::254") // metadata service over IPv6
}

// checkTarget reads host:port. The text is not quoted: someone may have put
// a credential before the host.
func checkTarget(s string) error {
	const accepted = "; accepted is host:port such as 10.0.0.5:8080, [2001:db8::5]:8080 or orders.internal:8080"
	if strings.HasPrefix(s, "unix:") {
		return errors.New("is a unix socket" + accepted)
	}
	if strings.Contains(s, "@") {
		return errors.New("holds a user or password" + accepted)
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return errors.New("has no port" + accepted)
	}
	if !validPort(s[i+1:]) {
		return errors.New("has no port from 1 to 65535" + accepted)
	}
	host := s[:i]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); !ok || err != nil || !a.Is6() {
			return errors.New("has no IPv6 address in its brackets" + accepted)
		}
		host = inner
	} else if strings.Contains(host, ":") {
		return errors.New("has an IPv6 address without brackets" + accepted)
	}
	return checkTargetHost(host, accepted)
}

func checkTargetHost(host, accepted string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		if ForbiddenAddress(a) {
			return errors.New("is a link-local, unspecified or multicast address, which is refused (a metadata service may answer there)" + accepted)
		}
		return nil
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	switch {
	case acceptHostname(host) != "":
		return errors.New("has no host name or address" + accepted)
	case last[0] >= '0' && last[0] <= '9':
		// "2852039166" and "0xa9fea9fe" are addresses to some resolvers.
		return errors.New("has an address in an unusual form" + accepted)
	case host == "metadata.google.internal":
		return errors.New("is a metadata service, which is refused" + accepted)
	}
	return nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func acceptTarget(s string) string {
	if err := checkTarget(s); err != nil {
		return err.Error()
	}
	return ""
}

// acceptURL accepts a service's url. The text is not quoted: see checkTarget.
func acceptURL(s string) string {
	const accepted = "; accepted is http://host[:port] or https://host[:port]"
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "is not a URL" + accepted
	case u.Scheme != "http" && u.Scheme != "https":
		return "is no http or https URL" + accepted
	case u.User != nil:
		return "holds a user or password" + accepted
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "holds a path, query or fragment (a route's rewrite can add a path)" + accepted
	case u.Port() != "" && !validPort(u.Port()) || strings.HasSuffix(u.Host, ":"):
		return "has no port from 1 to 65535" + accepted
	}
	if err := checkTargetHost(u.Hostname(), accepted); err != nil {
		return err.Error()
	}
	return ""
}
