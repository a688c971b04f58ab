package middleware

import (
	"encoding/base64"
	"runtime"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/middleware/passwords"
	"github.com/sluice-gateway/sluice/routing"
)

// maxWaiting is how many requests may wait to have a password checked.
const maxWaiting = 128

// BasicAuthConfig is the configuration of the basic_auth plugin: the caller
// shows a name and a password of a users file (RFC 7617).
type BasicAuthConfig struct {
	UsersFile  string `json:"users_file"`
	GroupsFile string `json:"groups_file"`
	Realm      string `json:"realm"`
	// ForwardCredentials leaves the password in what goes on to the instance.
	ForwardCredentials bool `json:"forward_credentials"`
	// UserHeader and GroupsHeader tell the instance who asks.
	UserHeader   string `json:"user_header"`
	GroupsHeader string `json:"groups_header"`

	users     *File[*passwords.Users]
	groups    *File[passwords.Groups] // nil without a file
	gate      *passwords.Gate
	challenge string
}

func basicAuthPlugin() *Plugin {
	return authenticates(Define[BasicAuthConfig]("basic_auth", func(c *gin.Context, x *routing.Exchange, config *BasicAuthConfig) {
		config.handle(c, x)
	}))
}

// Prepare implements PluginConfig.
func (c *BasicAuthConfig) Prepare(at *Place) routing.Faults {
	var faults, fs routing.Faults
	setDefault(&c.Realm, "sluice")
	setDefault(&c.UserHeader, "X-User-ID")
	setDefault(&c.GroupsHeader, "X-Consumer-Groups")
	faults = append(faults, ownHeaderFault(at, "user_header", c.UserHeader)...)
	faults = append(faults, ownHeaderFault(at, "groups_header", c.GroupsHeader)...)
	c.UserHeader, c.GroupsHeader = canonical(c.UserHeader), canonical(c.GroupsHeader)
	if c.UserHeader == c.GroupsHeader {
		faults = append(faults, routing.Fault{Field: at.At("groups_header"), Message: "is the user_header too"})
	}
	if strings.ContainsAny(c.Realm, `"\`) || headerValueFault(c.Realm) != "" {
		faults = append(faults, routing.Fault{Field: at.At("realm"), Message: `holds a quote, a backslash or a control character`})
	}
	if c.UsersFile == "" {
		faults = append(faults, routing.Fault{Field: at.At("users_file"), Message: "is missing; write one with htpasswd -B"})
	} else {
		c.users, fs = KeepFile(at, "users_file", "users", c.UsersFile, passwords.Parse)
		faults = append(faults, fs...)
	}
	if c.GroupsFile != "" {
		c.groups, fs = KeepFile(at, "groups_file", "groups", c.GroupsFile, passwords.ParseGroups)
		faults = append(faults, fs...)
	}
	// One gate for all routes: they share the processors. Half of those are
	// left to whoever needs no password checked.
	c.gate = Keep(at, "basic_auth", func() *passwords.Gate {
		return passwords.NewGate(max(runtime.GOMAXPROCS(0)/2, 1), maxWaiting)
	})
	c.challenge = `Basic realm="` + c.Realm + `", charset="UTF-8"`
	return faults
}

// OwnHeaders implements routing.HeaderOwner.
func (c *BasicAuthConfig) OwnHeaders() []string { return []string{c.UserHeader, c.GroupsHeader} }

func (c *BasicAuthConfig) handle(gc *gin.Context, x *routing.Exchange) {
	h := gc.Request.Header
	user, password, ok := basicCredentials(h["Authorization"])
	if !ok {
		rejectUnknown(gc, "basic_auth", c.challenge, "a user name and a password are needed here")
		return
	}
	right, err := c.users.Get().Verify(c.gate, user, password)
	switch {
	case err != nil:
		Reject(gc, "basic_auth", &routing.Refusal{Code: routing.CodeOverloaded, Cause: err, RetryAfter: time.Second,
			Detail: "too many passwords are being checked; try again soon"})
		return
	case !right:
		rejectUnknown(gc, "basic_auth", c.challenge, "the user name or the password is wrong")
		return
	}
	if !c.ForwardCredentials {
		delete(h, "Authorization")
	}
	x.Identity = &routing.Identity{Plugin: "basic_auth", Subject: user}
	if c.groups != nil {
		x.Identity.Groups = c.groups.Get()[user]
	}
	tell(h, c.UserHeader, user)
	tell(h, c.GroupsHeader, strings.Join(x.Identity.Groups, ","))
}

// basicCredentials reads the one Authorization line of a request. Two lines
// are none: the instance might believe the other.
func basicCredentials(lines []string) (user, password string, ok bool) {
	const scheme = "basic "
	if len(lines) != 1 || len(lines[0]) < len(scheme) || !strings.EqualFold(lines[0][:len(scheme)], scheme) {
		return "", "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.Trim(lines[0][len(scheme):], " "))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(decoded), ":")
}
