package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/middleware/remote"
)

// ask asks the server about a token. Errors that wrap errAway say that it
// gave no answer; the others, that the token is no good.
func (c *IntrospectionConfig) ask(ctx context.Context, token string) (*passport, error) {
	// A slot is waited for no longer than an answer would be.
	timer := time.NewTimer(c.server.client.Timeout)
	defer timer.Stop()
	select {
	case c.server.slots <- struct{}{}:
		defer func() { <-c.server.slots }()
	case <-timer.C:
		return nil, fmt.Errorf("%w: %d questions are under way", errAway, maxAsked)
	}
	raw, err := c.post(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAway, err)
	}
	answer, err := strictObject(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: the answer %w", errAway, err)
	}
	active, ok := answer["active"].(bool)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: the answer does not say whether the token is active", errAway)
	case !active, answer["token_use"] == "refresh_token":
		return nil, errInactive
	}
	p, err := c.read("introspection", answer)
	if err != nil {
		return nil, err
	}
	p.size = 4 * len(raw)
	return p, nil
}

// post sends the question and returns the body of a 200 answer.
func (c *IntrospectionConfig) post(ctx context.Context, token string) ([]byte, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	secret := string(c.secret())
	if c.ClientAuth == "post" {
		form.Set("client_id", c.ClientID)
		form.Set("client_secret", secret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if c.ClientAuth == "basic" {
		// Both are encoded first, so that a colon in the name is none of the
		// separator's (RFC 6749 section 2.3.1).
		req.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(secret))
	}
	resp, err := c.server.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // its text holds the address
			err = u.Err
		}
		return nil, fmt.Errorf("ask %s: %w", req.URL.Host, err)
	}
	body, err := remote.ReadBody(resp)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", req.URL.Host, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: it answered %d", req.URL.Host, resp.StatusCode)
	}
	return body, nil
}
