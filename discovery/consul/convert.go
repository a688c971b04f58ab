package consul

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-gateway/sluice/discovery"
)

// instances converts what the health endpoint lists: sorted by ID, one entry
// for each ID. An entry without an address or with a port that cannot be
// dialled is left out. It keeps nothing of entries but strings.
func instances(entries []*api.ServiceEntry) []discovery.Instance {
	out := make([]discovery.Instance, 0, len(entries))
	for _, e := range entries {
		if e == nil || e.Service == nil || e.Node == nil {
			continue
		}
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		if host == "" || e.Service.Port < 1 || e.Service.Port > 65535 {
			continue
		}
		out = append(out, discovery.Instance{
			ID:         e.Node.Node + "/" + e.Service.ID,
			Address:    net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(e.Service.Port)),
			Weight:     max(e.Service.Weights.Passing, 0),
			Tags:       sorted(e.Service.Tags),
			Meta:       nonEmpty(e.Service.Meta),
			Registered: e.Service.CreateIndex,
		})
	}
	slices.SortStableFunc(out, func(a, b discovery.Instance) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(out, func(a, b discovery.Instance) bool { return a.ID == b.ID })
}

func nonEmpty(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return m
}

// sorted returns the distinct tags in order, nil for none.
func sorted(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	tags = slices.Clone(tags)
	slices.Sort(tags)
	return slices.Compact(tags)
}

func sameInstances(a, b []discovery.Instance) bool {
	return slices.EqualFunc(a, b, func(x, y discovery.Instance) bool {
		return x.ID == y.ID && x.Address == y.Address && x.Weight == y.Weight &&
			x.Registered == y.Registered && slices.Equal(x.Tags, y.Tags) && maps.Equal(x.Meta, y.Meta)
	})
}

// announcements picks, of the catalog, the services with tags under prefix
// and those tags, sorted.
func announcements(catalog map[string][]string, prefix string) map[string][]string {
	out := make(map[string][]string)
	for name, tags := range catalog {
		var own []string
		for _, t := range tags {
			if strings.HasPrefix(t, prefix) {
				own = append(own, t)
			}
		}
		if len(own) > 0 {
			out[name] = sorted(own)
		}
	}
	return out
}
