package middleware

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/middleware/bots"
	"github.com/sluice-gateway/sluice/routing"
)

// What bot_guard does about a suspect.
const (
	botObserve   = "observe"
	botChallenge = "challenge"
	botSlow      = "slow"
	botBlock     = "block"
)

const (
	// botScoreHeader tells the instance of a suspect. No client can send it:
	// the edge removes X-Sluice-*.
	botScoreHeader = "X-Sluice-Bot-Score"
	// maxSlowed bounds the requests that are made to wait: each holds a
	// connection.
	maxSlowed = 1000
	// maxAgents bounds the patterns, maxAgentBytes each of them and what they
	// are compared with.
	maxAgents, maxAgentBytes = 50, 512
)

// BotGuardConfig is the configuration of the bot_guard plugin: what to do
// about clients that act like scripts.
type BotGuardConfig struct {
	Action   string           `json:"action"`
	BlockFor routing.Duration `json:"block_for"`
	SlowBy   routing.Duration `json:"slow_by"`

	Threshold   int              `json:"threshold"`
	Window      routing.Duration `json:"window"`
	MaxRate     float64          `json:"max_rate"`
	MinRequests int              `json:"min_requests"`
	MaxClients  int              `json:"max_clients"`

	// Allow are the addresses that are not looked at.
	Allow []Range `json:"allow"`
	// UserAgents are patterns (RE2) of clients that are suspects whatever
	// they do. There is none that clears a client: it could say so itself.
	UserAgents []string `json:"user_agents"`

	rules  bots.Rules
	agents []*regexp.Regexp
	guard  *botGuard
}

// botGuard is what outlives a change of the configuration.
type botGuard struct {
	clients *bots.Clients
	slowed  atomic.Int64
}

func botGuardPlugin() *Plugin {
	return Define[BotGuardConfig]("bot_guard", func(c *gin.Context, x *routing.Exchange, config *BotGuardConfig) {
		config.handle(c, x)
	})
}

// Prepare implements PluginConfig.
func (c *BotGuardConfig) Prepare(at *Place) routing.Faults {
	var faults routing.Faults
	fault := func(field, format string, args ...any) {
		faults = append(faults, routing.Fault{Field: at.At(field), Message: fmt.Sprintf(format, args...)})
	}
	setDefault(&c.Action, botObserve)
	if !slices.Contains([]string{botObserve, botChallenge, botSlow, botBlock}, c.Action) {
		fault("action", "is none of observe, challenge, slow, block")
	}
	for _, d := range []struct {
		field           string
		value           *routing.Duration
		otherwise       time.Duration
		atLeast, atMost time.Duration
	}{
		{"block_for", &c.BlockFor, 10 * time.Minute, time.Second, 24 * time.Hour},
		{"slow_by", &c.SlowBy, time.Second, time.Millisecond, 10 * time.Second},
		{"window", &c.Window, time.Minute, 10 * time.Second, 10 * time.Minute},
	} {
		if *d.value == 0 {
			*d.value = routing.Duration(d.otherwise)
		}
		if v := time.Duration(*d.value); v < d.atLeast || v > d.atMost {
			fault(d.field, "must be from %s to %s", d.atLeast, d.atMost)
		}
	}
	for _, n := range []struct {
		field                      string
		value                      *int
		otherwise, atLeast, atMost int
	}{
		{"threshold", &c.Threshold, 60, 1, 100},
		{"min_requests", &c.MinRequests, 20, bots.MinRequests, bots.MaxRequests},
		{"max_clients", &c.MaxClients, 10_000, 100, 1_000_000},
	} {
		if *n.value == 0 {
			*n.value = n.otherwise
		}
		if *n.value < n.atLeast || *n.value > n.atMost {
			fault(n.field, "must be from %d to %d", n.atLeast, n.atMost)
		}
	}
	if c.MaxRate == 0 {
		c.MaxRate = 10
	}
	if c.MaxRate < 0.1 || c.MaxRate > 100_000 {
		fault("max_rate", "must be from 0.1 to 100000 requests a second")
	}
	if len(c.Allow) > maxRanges {
		fault("allow", "has %d ranges; at most %d are accepted", len(c.Allow), maxRanges)
	}
	faults = append(faults, c.compileAgents(at)...)
	c.rules = bots.Rules{MinRequests: c.MinRequests, Window: time.Duration(c.Window), MaxRate: c.MaxRate, Threshold: c.Threshold}
	if c.Action == botBlock {
		c.rules.BlockFor = time.Duration(c.BlockFor)
	}
	if len(faults) == 0 {
		c.guard = Keep(at, fmt.Sprintf("bot_guard/%d%s", c.MaxClients, at.Key), func() *botGuard {
			return &botGuard{clients: bots.New(c.MaxClients)}
		})
	}
	return faults
}

func (c *BotGuardConfig) compileAgents(at *Place) (faults routing.Faults) {
	if len(c.UserAgents) > maxAgents {
		return routing.Faults{{Field: at.At("user_agents"),
			Message: fmt.Sprintf("has %d patterns; at most %d are accepted", len(c.UserAgents), maxAgents)}}
	}
	for i, text := range c.UserAgents {
		field := fmt.Sprintf("%s[%d]", at.At("user_agents"), i)
		if len(text) > maxAgentBytes {
			faults = append(faults, routing.Fault{Field: field, Message: fmt.Sprintf("is longer than %d bytes", maxAgentBytes)})
			continue
		}
		re, err := regexp.Compile(text)
		if err != nil {
			faults = append(faults, routing.Fault{Field: field, Message: err.Error()})
			continue
		}
		c.agents = append(c.agents, re)
	}
	return faults
}

func (c *BotGuardConfig) handle(gc *gin.Context, x *routing.Exchange) {
	if longest(c.Allow, x.Client) >= 0 {
		return
	}
	v := c.guard.clients.Arrive(x.Client, x.Match.Path.Match, &c.rules)
	if c.named(gc.Request.UserAgent()) {
		v.Score, v.Suspect = 100, true
	}
	if v.Suspect && !c.act(gc, v) {
		return
	}
	gc.Next()
	switch stateOf(gc).w.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		c.guard.clients.Failed(v)
	}
}

// named says whether a pattern matches what the client calls itself.
func (c *BotGuardConfig) named(agent string) bool {
	if len(agent) > maxAgentBytes {
		agent = agent[:maxAgentBytes]
	}
	return slices.ContainsFunc(c.agents, func(re *regexp.Regexp) bool { return re.MatchString(agent) })
}

// act does what is to be done about a suspect, and says whether its request
// goes on.
func (c *BotGuardConfig) act(gc *gin.Context, v bots.Visit) bool {
	st := stateOf(gc)
	st.bot, st.botScore = c.Action, v.Score
	st.engine.metrics.suspect(st, c.Action)
	switch c.Action {
	case botChallenge:
		gc.Request.Header[botScoreHeader] = []string{strconv.Itoa(v.Score)}
	case botSlow:
		return c.slow(gc)
	case botBlock:
		Reject(gc, "bot_guard", &routing.Refusal{Code: routing.CodeForbidden, RetryAfter: v.Blocked,
			Detail: "this client acts like a script and is kept out for a while"})
		return false
	}
	return true
}

// slow makes a request wait, unless too many do.
func (c *BotGuardConfig) slow(gc *gin.Context) bool {
	defer c.guard.slowed.Add(-1)
	if c.guard.slowed.Add(1) > maxSlowed {
		Reject(gc, "bot_guard", &routing.Refusal{Code: routing.CodeRateLimited, RetryAfter: time.Duration(c.SlowBy),
			Detail: "this client acts like a script; too many such requests wait already"})
		return false
	}
	timer := time.NewTimer(time.Duration(c.SlowBy))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-gc.Request.Context().Done(): // whoever forwards finds out
	}
	return true
}
