package middleware

import (
	"fmt"
	"net/netip"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// maxRanges bounds one list: they are walked for each request.
const maxRanges = 1000

// IPFilterConfig is the configuration of the ip_filter plugin: who may pass
// by address. Of the ranges that hold the client's address the longest
// decides; of equal ones deny does. An address in no range passes if there
// is no allow list.
type IPFilterConfig struct {
	Allow []Range `json:"allow"`
	Deny  []Range `json:"deny"`
}

// Range is an address or a range of addresses, as in 10.0.0.5 and 10.0.0.0/8.
type Range struct{ netip.Prefix }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Range) UnmarshalText(text []byte) error {
	s := string(text)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		r.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%q is no address or range, such as 10.0.0.5, 10.0.0.0/8 or fd00::/8", s)
	}
	if p != p.Masked() {
		return fmt.Errorf("%q has address bits after its mask; write %s", s, p.Masked())
	}
	r.Prefix = unmapPrefixes([]netip.Prefix{p})[0]
	return nil
}

func ipFilterPlugin() *Plugin {
	return Define[IPFilterConfig]("ip_filter", func(c *gin.Context, x *routing.Exchange, config *IPFilterConfig) {
		if !config.passes(x.Client) {
			Reject(c, "ip_filter", &routing.Refusal{Code: routing.CodeForbidden,
				Detail: "this address may not use this route"})
		}
	})
}

// Prepare implements PluginConfig.
func (c *IPFilterConfig) Prepare(at *Place) routing.Faults {
	if len(c.Allow)+len(c.Deny) == 0 {
		return routing.Faults{{Field: at.At("allow"), Message: "is missing, and deny too; give at least one range in either"}}
	}
	var faults routing.Faults
	for name, list := range map[string][]Range{"allow": c.Allow, "deny": c.Deny} {
		if len(list) > maxRanges {
			faults = append(faults, routing.Fault{Field: at.At(name),
				Message: fmt.Sprintf("has %d ranges; at most %d are accepted", len(list), maxRanges)})
		}
	}
	return faults
}

// passes decides about one address. One that is not known passes nowhere.
func (c *IPFilterConfig) passes(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	allow, deny := longest(c.Allow, a), longest(c.Deny, a)
	if allow < 0 && deny < 0 {
		return len(c.Allow) == 0
	}
	return allow > deny
}

// longest is the length of the longest range that holds a, or -1.
func longest(ranges []Range, a netip.Addr) int {
	best := -1
	for _, r := range ranges {
		if r.Bits() > best && r.Contains(a) {
			best = r.Bits()
		}
	}
	return best
}
