package middleware

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/middleware/limit"
	"github.com/sluice-gateway/sluice/routing"
)

// RateLimitConfig is the configuration of the rate_limit plugin: how many
// requests may pass, of whom. A request has to fit within every limit; one
// that is refused by any takes nothing from the others.
type RateLimitConfig struct {
	LimitsConfig
	// Key is one of, or a list of: ip, consumer, claim:NAME, header:NAME,
	// route. Whatever a request does not have, its address stands in for.
	Key any `json:"key"`
}

// IPRateLimitConfig is the configuration of the ip_rate_limit plugin, which
// counts by the client's address.
type IPRateLimitConfig struct{ LimitsConfig }

// LimitsConfig is what both plugins are told.
type LimitsConfig struct {
	Limits    []LimitConfig   `json:"limits"`
	Algorithm limit.Algorithm `json:"algorithm"`
	// Queue and MaxWait are for leaky_bucket: how many of one key may wait for
	// their turn, and how long one may.
	Queue   *int              `json:"queue"`
	MaxWait *routing.Duration `json:"max_wait"`
	// Store is local or redis; OnStoreError is what happens while Redis is
	// away: local, allow or deny. Gateways is how many share the limits: each
	// one's part of them while it counts for itself.
	Store        string `json:"store"`
	OnStoreError string `json:"on_store_error"`
	Gateways     int    `json:"gateways"`
	// IPv6Prefix is how much of an IPv6 address counts as the client.
	IPv6Prefix int `json:"ipv6_prefix"`

	rates *rates
}

// LimitConfig is one limit.
type LimitConfig struct {
	Requests int    `json:"requests"`
	Per      Period `json:"per"`
	// Burst is for token_bucket: how many requests may come at once.
	Burst *int `json:"burst"`
}

// Period is a length of time, as second, minute, hour, day or a duration.
type Period struct {
	Text string
	time.Duration
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Period) UnmarshalText(text []byte) error {
	p.Text = string(text)
	switch p.Text {
	case "second":
		p.Duration = time.Second
	case "minute":
		p.Duration = time.Minute
	case "hour":
		p.Duration = time.Hour
	case "day":
		p.Duration = 24 * time.Hour
	default:
		d, err := routing.ParseDuration(p.Text)
		if err != nil {
			return fmt.Errorf("%q is none of second, minute, hour, day, and no duration such as 10s", head(p.Text, 64))
		}
		p.Duration = time.Duration(d)
	}
	return nil
}

func rateLimitPlugin() *Plugin {
	return Define[RateLimitConfig]("rate_limit", func(c *gin.Context, x *routing.Exchange, config *RateLimitConfig) {
		config.rates.admit(c, x)
	})
}

func ipRateLimitPlugin() *Plugin {
	return Define[IPRateLimitConfig]("ip_rate_limit", func(c *gin.Context, x *routing.Exchange, config *IPRateLimitConfig) {
		config.rates.admit(c, x)
	})
}

// Prepare implements PluginConfig.
func (c *RateLimitConfig) Prepare(at *Place) routing.Faults {
	key, faults := compileKey(at, c.Key, c.IPv6Prefix)
	return append(faults, c.prepare(at, "rate_limit", key)...)
}

// Prepare implements PluginConfig.
func (c *IPRateLimitConfig) Prepare(at *Place) routing.Faults {
	key, faults := compileKey(at, "ip", c.IPv6Prefix)
	return append(faults, c.prepare(at, "ip_rate_limit", key)...)
}

// rates is the compiled form. It is immutable; what it counts is kept by the
// registry.
type rates struct {
	plugin string
	key    limitKey
	// local counts here: always, or while shared cannot; nil where it never
	// does. shared is nil without Redis.
	local  *limit.Local
	shared *limit.Shared
	deny   bool // while shared cannot
	// policy is the RateLimit-Policy field, and names what RateLimit calls the
	// rules.
	policy []string
	names  []string
}

// unavailable answers while Redis is away, where that is the choice.
var unavailable = routing.Refusal{Code: routing.CodeOverloaded, RetryAfter: time.Second,
	Detail: "the store of this route's limits is away"}

// admit lets a request pass, makes it wait for its turn, or refuses it.
func (p *rates) admit(c *gin.Context, x *routing.Exchange) {
	d, decided := p.decide(c.Request, x)
	if !decided {
		if p.deny {
			ref := unavailable
			Reject(c, p.plugin, &ref)
		}
		return
	}
	p.tell(c.Writer.Header(), &d)
	if !d.Allowed {
		Reject(c, p.plugin, &routing.Refusal{Code: routing.CodeRateLimited,
			Detail: "too many requests; see Retry-After", RetryAfter: d.RetryAfter})
		return
	}
	if d.Wait > 0 {
		wait(c, d.Wait)
	}
}

// decide counts a request; decided is false where nobody could.
func (p *rates) decide(r *http.Request, x *routing.Exchange) (d limit.Decision, decided bool) {
	var buf [128]byte
	key := p.key.appendTo(buf[:0], r, x)
	if p.shared != nil {
		if d, err := p.shared.Take(r.Context(), key); err == nil {
			return d, true
		}
	}
	if p.local == nil {
		return d, false
	}
	return p.local.Take(time.Now(), key), true
}

// wait waits for a request's turn; a client that leaves gets no answer, and
// its turn stays empty.
func wait(c *gin.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	ctx := c.Request.Context()
	select {
	case <-timer.C:
	case <-ctx.Done():
		st := stateOf(c)
		st.engine.forwardFailed(c, st, &routing.Refusal{Code: routing.CodeClientClosed,
			Detail: "the client left while it waited for its turn", Cause: ctx.Err()})
	}
}

// Canonical names of the fields of draft-ietf-httpapi-ratelimit-headers.
const (
	headerRateLimit       = "Ratelimit"
	headerRateLimitPolicy = "Ratelimit-Policy"
)

// tell adds what the client may know of its limits: the one that refused, or
// has least left. Both fields are lists, so two plugins may add to them.
func (p *rates) tell(h http.Header, d *limit.Decision) {
	var buf [96]byte
	b := append(buf[:0], p.names[d.Rule]...)
	b = strconv.AppendInt(append(b, ";r="...), int64(d.Remaining), 10)
	b = strconv.AppendInt(append(b, ";t="...), int64((d.Reset+time.Second-1)/time.Second), 10)
	h[headerRateLimit] = append(h[headerRateLimit], string(b))
	if was := h[headerRateLimitPolicy]; was != nil {
		h[headerRateLimitPolicy] = append(was, p.policy...)
	} else {
		h[headerRateLimitPolicy] = p.policy
	}
}

// describe fills in policy and names; limits and rules are in one order.
func (p *rates) describe(rules []limit.Rule, period func(limit.Rule) string) {
	var policy string
	for _, r := range rules {
		name := p.plugin + "-" + period(r)
		for n := 2; slices.Contains(p.names, strconv.Quote(name)); n++ {
			name = fmt.Sprintf("%s-%s-%d", p.plugin, period(r), n)
		}
		p.names = append(p.names, strconv.Quote(name))
		if policy != "" {
			policy += ", "
		}
		policy += fmt.Sprintf("%q;q=%d", name, r.Requests)
		if r.Per%time.Second == 0 {
			policy += fmt.Sprintf(";w=%d", r.Per/time.Second)
		}
	}
	p.policy = slices.Clip([]string{policy})
}
