package middleware

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/middleware/limit"
	"github.com/sluice-gateway/sluice/routing"
)

const (
	minPeriod = 100 * time.Millisecond
	maxPeriod = 366 * 24 * time.Hour
	// maxLog bounds a sliding window: it remembers the time of every request.
	maxLog         = 10_000
	defaultMaxWait = 5 * time.Second
	longestMaxWait = time.Minute
	maxGateways    = 1000
)

// What on_store_error and store may be.
const (
	storeLocal = "local"
	storeRedis = "redis"
	errorAllow = "allow"
	errorDeny  = "deny"
)

// prepare checks the limits and makes rates of them for key.
func (c *LimitsConfig) prepare(at *Place, plugin string, key limitKey) routing.Faults {
	var faults routing.Faults
	fault := func(field, format string, args ...any) {
		faults = append(faults, routing.Fault{Field: at.At(field), Message: fmt.Sprintf(format, args...)})
	}
	c.defaults()
	if !slices.Contains(limit.Algorithms(), c.Algorithm) {
		fault("algorithm", "is %q; accepted are token_bucket, leaky_bucket, fixed_window, sliding_window", head(string(c.Algorithm), 64))
		return faults
	}
	rules, periods := c.rules(fault)
	if c.Store != storeLocal && c.Store != storeRedis {
		fault("store", "is %q; accepted are local, redis", head(c.Store, 64))
	} else if c.Store == storeRedis && at.Redis() == nil {
		fault("store", "is redis, but the gateway's configuration has no redis.address")
	}
	if !slices.Contains([]string{storeLocal, errorAllow, errorDeny}, c.OnStoreError) {
		fault("on_store_error", "is %q; accepted are local, allow, deny", head(c.OnStoreError, 64))
	}
	if c.Gateways < 1 || c.Gateways > maxGateways {
		fault("gateways", "is %d; accepted is 1 to %d", c.Gateways, maxGateways)
	}
	if len(faults) > 0 {
		return faults
	}
	c.rates = &rates{plugin: plugin, key: key, deny: c.OnStoreError == errorDeny}
	c.rates.describe(rules, func(r limit.Rule) string { return periods[r] })
	scope := fmt.Sprintf("%s/%q/%s", plugin, at.Key, key)
	share := 1
	if c.Store == storeRedis {
		c.rates.shared = limit.NewShared(at.Redis(), scope, rules)
		share = c.Gateways
		if c.OnStoreError != storeLocal {
			return nil
		}
	}
	// Each window is kept by itself: to change one limit leaves what the
	// others have counted. Shared ones are Redis's to keep.
	windows := make([]*limit.Window, len(rules))
	for i, r := range rules {
		windows[i] = Keep(at, fmt.Sprintf("%s/%s/%d", scope, r, share), func() *limit.Window {
			return limit.NewWindow(r.Share(share))
		})
	}
	c.rates.local = limit.NewLocal(windows...)
	return nil
}

func (c *LimitsConfig) defaults() {
	if c.Algorithm == "" {
		c.Algorithm = limit.TokenBucket
	}
	if c.Store == "" {
		c.Store = storeLocal
	}
	if c.OnStoreError == "" {
		c.OnStoreError = storeLocal
	}
	if c.Gateways == 0 {
		c.Gateways = 1
	}
}

// rules makes rules of the limits, in the limiters' order, and says how each
// one's period was written.
func (c *LimitsConfig) rules(fault func(field, format string, args ...any)) ([]limit.Rule, map[limit.Rule]string) {
	if n := len(c.Limits); n == 0 || n > limit.MaxRules {
		fault("limits", "has %d entries; accepted is 1 to %d, such as {requests: 100, per: second}", n, limit.MaxRules)
	}
	leaky := c.Algorithm == limit.LeakyBucket
	if !leaky && c.Queue != nil {
		fault("queue", "belongs to algorithm leaky_bucket")
	}
	if !leaky && c.MaxWait != nil {
		fault("max_wait", "belongs to algorithm leaky_bucket")
	}
	maxWait := defaultMaxWait
	if c.MaxWait != nil {
		maxWait = time.Duration(*c.MaxWait)
	}
	if maxWait <= 0 || maxWait > longestMaxWait {
		fault("max_wait", "is %s; accepted is more than 0s, up to %s", maxWait, longestMaxWait)
	}
	if c.Queue != nil && (*c.Queue < 0 || *c.Queue > maxLog) {
		fault("queue", "is %d; accepted is 0 to %d", *c.Queue, maxLog)
	}
	var rules []limit.Rule
	periods := map[limit.Rule]string{}
	for i, l := range c.Limits {
		field := fmt.Sprintf("limits[%d]", i)
		r := limit.Rule{Algorithm: c.Algorithm, Requests: l.Requests, Per: l.Per.Duration}
		if name, message := l.wrong(c.Algorithm); name != "" {
			fault(field+"."+name, "%s", message)
			continue
		}
		if leaky {
			r.Queue, r.MaxWait = min(l.Requests, maxLog), maxWait
			if c.Queue != nil {
				r.Queue = *c.Queue
			}
		}
		if c.Algorithm == limit.TokenBucket {
			r.Burst = l.Requests
			if l.Burst != nil {
				r.Burst = *l.Burst
			}
		}
		if periods[r] != "" {
			fault(field, "stands there twice")
		}
		periods[r] = l.Per.Text
		rules = append(rules, r)
	}
	return limit.Sort(rules), periods
}

// wrong returns the field of a limit that cannot be kept, and why; "" for
// none.
func (l LimitConfig) wrong(a limit.Algorithm) (field, message string) {
	most := int(min(l.Per.Duration/time.Microsecond, 1e9))
	switch {
	case l.Per.Text == "":
		return "per", "is missing; give second, minute, hour, day or a duration"
	case l.Per.Duration < minPeriod || l.Per.Duration > maxPeriod:
		return "per", fmt.Sprintf("is %s; accepted is %s to %s", l.Per.Duration, minPeriod, maxPeriod)
	case l.Requests < 1:
		return "requests", fmt.Sprintf("is %d; accepted is 1 and above", l.Requests)
	case l.Requests > maxLog && a == limit.SlidingWindow:
		return "requests", fmt.Sprintf("is %d; sliding_window remembers each, at most %d", l.Requests, maxLog)
	case l.Requests > most:
		return "requests", fmt.Sprintf("is %d; accepted is up to %d in this period", l.Requests, most)
	case l.Burst == nil:
		return "", ""
	case a == limit.LeakyBucket:
		return "burst", "belongs to algorithm token_bucket; see queue"
	case a != limit.TokenBucket:
		return "burst", "belongs to algorithm token_bucket"
	case *l.Burst < 1:
		return "burst", fmt.Sprintf("is %d; accepted is 1 and above", *l.Burst)
	case float64(*l.Burst)/float64(l.Requests)*float64(l.Per.Duration) > float64(maxPeriod):
		return "burst", fmt.Sprintf("is %d; it would take longer than %s to fill", *l.Burst, maxPeriod)
	}
	return "", ""
}
