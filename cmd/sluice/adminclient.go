package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/configs"
	"github.com/spf13/cobra"
)

// adminFlags say which gateway to ask.
type adminFlags struct {
	config, address string
}

func (f *adminFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.config, "config", "c", "", "configuration file, for admin.listen and admin.token")
	cmd.Flags().StringVar(&f.address, "admin", "", "address of the gateway's admin listener (default: admin.listen of the configuration)")
}

// adminClient reads the admin API of one gateway.
type adminClient struct {
	base  string
	token string
	http  *http.Client
}

func (f *adminFlags) client() (*adminClient, error) {
	cfg, err := configs.Load(f.config, nil)
	if err != nil {
		return nil, err
	}
	base := "http://" + reachable(cfg.Admin.Listen)
	if f.address != "" {
		if base, err = adminAddress(f.address); err != nil {
			return nil, usageError{err}
		}
	}
	return &adminClient{base: base, token: cfg.Admin.Token.Reveal(), http: &http.Client{Timeout: 10 * time.Second}}, nil
}

// adminAddress makes a URL without a path of what --admin was given.
func adminAddress(given string) (string, error) {
	base := given
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" ||
		(u.Scheme != "http" && u.Scheme != "https") {
		if err == nil {
			given = u.Redacted()
		}
		return "", fmt.Errorf("--admin: %q is not an address such as 127.0.0.1:8081 or http://host:8081", given)
	}
	return u.Scheme + "://" + u.Host, nil
}

// get returns the body of a 200 answer that can be a gateway's.
func (c *adminClient) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway (is it running, and is --admin right?): %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return nil, fmt.Errorf("read the gateway's answer: %w", err)
	}
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(body, &answer); err != nil {
		answer = nil
	}
	var detail string
	_ = json.Unmarshal(answer["detail"], &detail) // not there, or no text: ""
	switch {
	case resp.StatusCode == http.StatusOK && answer[mark(path)] != nil:
		return body, nil
	case resp.StatusCode == http.StatusOK:
		return nil, fmt.Errorf("%s answered what no admin listener does: is it that of the gateway?", c.base)
	case resp.StatusCode == http.StatusNotFound || detail == "": // a listener for traffic has details too
		return nil, fmt.Errorf("%s answered %s: is it the admin listener of the gateway?", c.base, resp.Status)
	}
	return nil, fmt.Errorf("the gateway answered %s: %s", resp.Status, detail)
}

// mark is a field that the admin listener's answer to path always has.
func mark(path string) string {
	switch path {
	case "/livez":
		return "status"
	case "/api/v1/status":
		return "gateway"
	case "/api/v1/explain":
		return "outcome"
	}
	return "items"
}
