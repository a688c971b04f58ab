package middleware

import (
	"fmt"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// maxBodyLimit bounds max_bytes: above it a number is more likely a slip.
const maxBodyLimit = 1 << 40

// BodyLimitConfig is the configuration of the body_limit plugin: how large a
// request's body may be, however it is framed.
type BodyLimitConfig struct {
	MaxBytes *int64 `json:"max_bytes"`

	refusal routing.Refusal
}

func bodyLimitPlugin() *Plugin {
	return Define[BodyLimitConfig]("body_limit", func(c *gin.Context, _ *routing.Exchange, config *BodyLimitConfig) {
		st, limit := stateOf(c), *config.MaxBytes
		switch {
		case c.Request.ContentLength > limit:
			Reject(c, "body_limit", &config.refusal)
		case st.body != nil:
			st.body.lower(limit, "body_limit")
		}
	})
}

// Prepare implements PluginConfig.
func (c *BodyLimitConfig) Prepare(at *Place) routing.Faults {
	switch {
	case c.MaxBytes == nil:
		return routing.Faults{{Field: at.At("max_bytes"), Message: "is missing; give a number of bytes"}}
	case *c.MaxBytes < 0 || *c.MaxBytes > maxBodyLimit:
		return routing.Faults{{Field: at.At("max_bytes"), Message: fmt.Sprintf("must be from 0 to %d", int64(maxBodyLimit))}}
	}
	c.refusal = routing.Refusal{Code: routing.CodeBodyTooLarge, Detail: tooLarge(*c.MaxBytes)}
	return nil
}

// tooLarge is what a client reads whose body was.
func tooLarge(limit int64) string {
	return fmt.Sprintf("the body is larger than the %d bytes accepted here", limit)
}
