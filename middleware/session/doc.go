// Package session logs users in through OpenID Connect and remembers them:
// the authorization code flow with PKCE, state and nonce (OpenID Connect Core
// 1.0 section 3.1, RFC 7636), server-side sessions in a store that gateways
// may share, their refresh, and Back-Channel Logout 1.0.
//
// The browser holds a signed random name and nothing else; what is known of
// the user stays in the store. Discovery, keys and tokens are go-oidc's and
// x/oauth2's work, signatures of cookies securecookie's: all three are kept,
// and what they leave to their caller (nonce, azp, at_hash, bounds on what is
// read, one refresh at a time) is done here.
//
// It knows no plugin and no Gin. Everything is safe for concurrent use.
package session
