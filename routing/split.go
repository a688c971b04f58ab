package routing

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// SplitCookie carries the number that decides a client's side of every split
// by cookie.
const SplitCookie = "sluice_split"

// share is one subset's part of a split.
type share struct {
	subset *Subset
	weight int
}

// split decides the subset of a request. It is immutable; the zero value
// always gives nil.
type split struct {
	shares []share // with a passing instance and a weight, in the order written
	total  uint64
	// fallback is the subset that answers "none" where no share is left.
	fallback *Subset
	by       string // random, cookie, ip
	header   string // with split_by header:NAME
	service  string
}

// newSplit leaves out subsets without an instance: their share goes to the
// others.
func newSplit(service, by string, a Active, subsets map[string]*Subset) split {
	s := split{by: by, service: service}
	if name, ok := strings.CutPrefix(by, "header:"); ok {
		s.by, s.header = "header", http.CanonicalHeaderKey(name)
	}
	for _, part := range a {
		sub := subsets[part.Subset]
		if part.Weight == 0 {
			continue
		}
		if s.fallback == nil {
			s.fallback = sub
		}
		if len(sub.Endpoints) == 0 {
			continue
		}
		s.shares = append(s.shares, share{sub, part.Weight})
		s.total += uint64(part.Weight)
	}
	return s
}

// at returns the subset at point of the whole.
func (s *split) at(point uint64) *Subset {
	point %= s.total
	for i := range s.shares {
		w := uint64(s.shares[i].weight)
		if point < w {
			return s.shares[i].subset
		}
		point -= w
	}
	return s.shares[len(s.shares)-1].subset
}

// choose picks the subset of a request, and the cookie to set, if any.
func (s *split) choose(r *http.Request, x *Exchange) (*Subset, *http.Cookie) {
	switch {
	case len(s.shares) == 0:
		return s.fallback, nil
	case len(s.shares) == 1:
		return s.shares[0].subset, nil
	}
	switch s.by {
	case "ip":
		return s.at(s.hash(x.Client.String())), nil
	case "header":
		if v := r.Header[s.header]; len(v) > 0 {
			return s.at(s.hash(v[0])), nil
		}
	case "cookie":
		if c, err := r.Cookie(SplitCookie); err == nil && c.Value != "" && len(c.Value) <= 64 {
			return s.at(s.hash(c.Value)), nil
		}
		id := fmt.Sprintf("%016x", rand.Uint64())
		return s.at(s.hash(id)), &http.Cookie{
			Name: SplitCookie, Value: id, Path: "/", MaxAge: int(splitLifetime.Seconds()),
			HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: r.TLS != nil,
		}
	}
	return s.at(rand.Uint64N(s.total)), nil
}

// hash is the same on every gateway, and another for each service, so that
// the same clients are not the canaries of everything.
func (s *split) hash(v string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(s.service)
	_, _ = d.WriteString("\x00")
	_, _ = d.WriteString(v)
	return d.Sum64()
}

// Choose returns the subset that serves r, and a cookie to set on the
// response, or nil. A subset without an instance is returned as it is: its
// picker says so.
func (s *Service) Choose(r *http.Request, x *Exchange) (*Subset, *http.Cookie) {
	if pin := x.Match.Route.Subset; pin != "" {
		return s.orEmpty(s.subsets[pin]), nil
	}
	if len(s.choice.serving) == 0 {
		return s.orEmpty(s.All), nil
	}
	sub, cookie := s.split.choose(r, x)
	return s.orEmpty(sub), cookie
}

// orEmpty applies on_empty: a named subset stands in for one without
// instances. (last_known is applied when the instances are gathered.)
func (s *Service) orEmpty(sub *Subset) *Subset {
	if len(sub.Endpoints) == 0 && s.standIn != nil {
		return s.standIn
	}
	return sub
}

// Share is a subset's part of the traffic.
type Share struct {
	Subset    string `json:"subset"`
	Weight    int    `json:"weight"`
	Instances int    `json:"instances"`
}

// Shares returns the subsets in effect with their weights and passing
// instances; none where all instances serve.
func (s *Service) Shares() []Share {
	var out []Share
	for _, part := range s.choice.serving {
		sh := Share{Subset: part.Subset, Weight: part.Weight}
		if sub := s.subsets[part.Subset]; sub != nil {
			sh.Instances = len(sub.Endpoints)
		}
		out = append(out, sh)
	}
	return out
}
