package routing

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/routing/balance"
)

// The shortest times that make sense: between two active checks, and for any
// wait that cannot be none.
const (
	minInterval = Duration(100 * time.Millisecond)
	minWait     = Duration(time.Millisecond)
)

// onEmptySubset begins the value of on_empty that names a subset.
const onEmptySubset = "subset "

// balanceDocument and hashDocument are how a document writes a picker that
// needs more than its name.
type balanceDocument struct {
	ConsistentHash *hashDocument `json:"consistent_hash"`
}

type hashDocument struct {
	Header string `json:"header,omitempty"`
	Cookie string `json:"cookie,omitempty"`
	IP     bool   `json:"ip,omitempty"`
	Path   bool   `json:"path,omitempty"`
}

// MarshalJSON writes the picker as documents do: its name, or
// {"consistent_hash": {"header": "X-User"}}.
func (b BalanceSpec) MarshalJSON() ([]byte, error) {
	if b.Kind != string(balance.ConsistentHash) {
		return json.Marshal(b.Kind)
	}
	return json.Marshal(balanceDocument{&hashDocument{b.Header, b.Cookie, b.IP, b.Path}})
}

// serviceBalance reads a picker: its name, or what consistent_hash hashes.
func serviceBalance(o *object) *BalanceSpec {
	const accepted = "; accepted is {consistent_hash: {header: X-User}}, or cookie, ip or path in the place of header"
	if _, isMapping := o.fields["balance"].(map[string]any); isMapping {
		doc := child(o, "balance", "", func(o *object) *balanceDocument {
			if !o.has("consistent_hash") {
				o.fault("consistent_hash", "is missing%s", accepted)
			}
			return &balanceDocument{child(o, "consistent_hash", "{header: X-User}", decodeHash)}
		})
		if doc.ConsistentHash == nil {
			return nil
		}
		h := doc.ConsistentHash
		return &BalanceSpec{Kind: string(balance.ConsistentHash), Header: h.Header, Cookie: h.Cookie, IP: h.IP, Path: h.Path}
	}
	kind := o.choice("balance", string(balance.RoundRobin), string(balance.LeastRequest), string(balance.P2C),
		string(balance.Random), string(balance.IPHash), string(balance.ConsistentHash))
	switch kind {
	case "":
		return nil
	case string(balance.ConsistentHash):
		o.fault("balance", "is consistent_hash without what to hash%s", accepted)
	}
	return &BalanceSpec{Kind: kind}
}

func decodeHash(o *object) *hashDocument {
	h := &hashDocument{
		Header: o.text("header", acceptToken),
		Cookie: o.text("cookie", acceptToken),
		IP:     o.flag("ip"),
		Path:   o.flag("path"),
	}
	given := 0
	for _, set := range []bool{o.has("header"), o.has("cookie"), h.IP, h.Path} {
		if set {
			given++
		}
	}
	if given != 1 && o.taken == len(o.fields) {
		faultAt(o.faults, o.path, "hashes %d things; accepted is exactly one of header: NAME, cookie: NAME, ip: true and path: true", given)
	}
	return h
}

func decodeSticky(o *object) *StickySpec {
	s := &StickySpec{Cookie: o.text("cookie", acceptToken), TTL: o.duration("ttl", 0)}
	if !o.has("cookie") {
		o.fault("cookie", "is missing; sticky needs the name of a cookie")
	}
	return s
}

func serviceSubsets(o *object) map[string]SubsetSpec {
	m := o.mapping("subsets", maxSubsets, "{green: {tags: [green]}}")
	if len(m) == 0 {
		return nil
	}
	subsets := make(map[string]SubsetSpec, len(m))
	for _, name := range sortedKeys(m) {
		at := joinField(joinField(o.path, "subsets"), name)
		if wrong := acceptName(name); wrong != "" {
			faultAt(o.faults, at, "%s", wrong)
		}
		if s := childValue(o, at, m[name], "{tags: [green]}", decodeSubset); s != nil {
			subsets[name] = *s
		}
	}
	return subsets
}

func decodeSubset(o *object) *SubsetSpec {
	before := len(*o.faults)
	s := &SubsetSpec{
		Tags:   o.texts("tags", maxTags, "[green]", acceptTag),
		Meta:   o.textMap("meta", maxLabels, "{version: \"2\"}", acceptLabel, acceptText),
		Consul: o.text("consul", acceptName),
	}
	if len(s.Tags) == 0 && len(s.Meta) == 0 && s.Consul == "" && len(*o.faults) == before {
		faultAt(o.faults, o.path, "says nothing about its instances; give tags, meta or consul")
	}
	return s
}

func acceptSplit(s string) string {
	name, isHeader := strings.CutPrefix(s, "header:")
	switch {
	case isHeader && acceptToken(name) != "":
		return quoted(s) + " names no header; accepted is header:X-User"
	case isHeader, s == "random", s == "cookie", s == "ip":
		return ""
	}
	return quoted(s) + " is not one of random, cookie, ip, header:NAME" + suggestion(s, []string{"random", "cookie", "ip"})
}

func acceptOnEmpty(s string) string {
	name, isSubset := strings.CutPrefix(s, onEmptySubset)
	switch {
	case isSubset && acceptName(name) != "":
		return quoted(s) + " names no subset; accepted is subset NAME"
	case isSubset, s == "error", s == "last_known":
		return ""
	}
	return quoted(s) + " is not one of error, last_known, subset NAME" + suggestion(s, []string{"error", "last_known"})
}

func decodeTimeouts(o *object) *TimeoutsSpec {
	return &TimeoutsSpec{
		Connect:        o.optionalDuration("connect", 0),
		ResponseHeader: o.optionalDuration("response_header", 0),
		Idle:           o.optionalDuration("idle", 0),
	}
}

func decodeRetry(o *object) *RetrySpec {
	return &RetrySpec{
		Attempts:      o.optionalInteger("attempts", 0, maxRetries),
		On:            retryReasons(o),
		BudgetPercent: o.optionalInteger("budget_percent", 0, 100),
		PerTryTimeout: o.duration("per_try_timeout", 0),
		Replay:        o.flag("replay"),
	}
}

// retryReasons reads a list in which a status may be a number, because that
// is how people write one.
func retryReasons(o *object) []string {
	if list, ok := o.fields["on"].([]any); ok {
		words := make([]any, len(list))
		for i, v := range list {
			if n, ok := v.(int64); ok {
				v = strconv.FormatInt(n, 10)
			}
			words[i] = v
		}
		o = &object{path: o.path, fields: map[string]any{"on": words}, faults: o.faults}
		return o.texts("on", maxTags, "", acceptReason)
	}
	return o.texts("on", maxTags, "[connect, reset, 503]", acceptReason)
}

func acceptReason(s string) string {
	switch s {
	case "connect", "reset", "timeout", "429":
		return ""
	}
	if len(s) == 3 && s >= "500" && s <= "599" {
		if _, err := strconv.ParseUint(s, 10, 16); err == nil {
			return ""
		}
	}
	return quoted(s) + " is no reason to retry; accepted are connect, reset, timeout, 429 and 500 to 599" +
		suggestion(s, []string{"connect", "reset", "timeout"})
}

func decodeHedge(o *object) *HedgeSpec {
	h := &HedgeSpec{After: o.duration("after", minWait)}
	if !o.has("after") {
		o.fault("after", "is missing; hedge needs the time after which a second attempt is sent, such as 200ms")
	}
	return h
}

func decodeOutlier(o *object) *OutlierSpec {
	return &OutlierSpec{
		ConsecutiveFailures: o.optionalInteger("consecutive_failures", 0, 1000),
		BaseEjection:        o.optionalDuration("base_ejection", minWait),
		MaxEjectionPercent:  o.optionalInteger("max_ejection_percent", 0, 100),
	}
}

func decodeHealthCheck(o *object) *HealthCheckSpec {
	h := &HealthCheckSpec{
		Type:           o.choice("type", "http", "tcp", "grpc"),
		Path:           o.text("path", acceptCheckPath),
		Interval:       o.duration("interval", minInterval),
		Timeout:        o.duration("timeout", minWait),
		UnhealthyAfter: o.integer("unhealthy_after", 1, 100),
		HealthyAfter:   o.integer("healthy_after", 1, 100),
	}
	if h.Path != "" && h.Type != "" && h.Type != "http" {
		o.fault("path", "is only for checks of type http")
	}
	return h
}

// acceptCheckPath accepts the path of an active check. It must not lead to
// another host: the gateway may reach what its operators' callers may not.
func acceptCheckPath(s string) string {
	if s[0] != '/' || strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\# ") || hasControl(s) || strings.ContainsRune(s, '\t') {
		return quoted(s) + ` is not a path on the instance; accepted is a path such as /health, without a scheme or host`
	}
	return ""
}

func decodeCircuitBreaker(o *object) *CircuitBreakerSpec {
	return &CircuitBreakerSpec{
		ErrorPercent: o.integer("error_percent", 1, 100),
		MinRequests:  o.integer("min_requests", 1, 1_000_000),
		Window:       o.duration("window", minInterval),
		OpenFor:      o.duration("open_for", minWait),
	}
}

// ConsumerSpec is a consumer document, under /sluice/consumers/NAME: who
// calls an API, and what they belong to. It holds no key, only its hash.
type ConsumerSpec struct {
	// KeySHA256 is the SHA-256 of the consumer's API key, 64 lower-case
	// hexadecimal digits.
	KeySHA256 string `json:"key_sha256"`
	// Groups are what access rules ask for.
	Groups []string `json:"groups,omitempty"`
}

func decodeConsumer(o *object) *ConsumerSpec {
	c := &ConsumerSpec{
		KeySHA256: strings.ToLower(o.text("key_sha256", acceptHash)),
		Groups:    o.texts("groups", maxLabels, "[gold]", acceptName),
	}
	if !o.has("key_sha256") {
		o.fault("key_sha256", "is missing; give the SHA-256 of the key as 64 hexadecimal digits")
	}
	return c
}

func acceptHash(s string) string {
	for i := range len(s) {
		if _, ok := hexDigit(s[i]); !ok {
			return "is not 64 hexadecimal digits"
		}
	}
	if len(s) != 64 {
		return "is not 64 hexadecimal digits"
	}
	return ""
}
