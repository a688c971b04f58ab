// Package admin is the gateway's second listener: health for orchestrators,
// metrics for Prometheus, and a JSON view of the live table for people and
// tools. It reads what the router, the hub and the pool already hold and
// changes nothing.
//
// The listener answers with more than a stranger should know, so it binds to
// loopback unless a token is set, checks the Host it is addressed by where
// there is no token (against DNS rebinding), and compares tokens in constant
// time.
package admin
