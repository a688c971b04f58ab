// Package session logs users in through OpenID Connect and remembers them:
// the authorization code flow with PKCE, state and nonce (OpenID Connect Core
// 1.0 section 3.1, RFC 7636), server-side sessions in a store that gateways
// may share, their refresh, and Back-Channel Logout 1.0.
//
// The browser holds a signed random token and nothing else; what is known of
// the user stays in the store, under the token's digest. Discovery, keys and
// tokens of the issuer are go-oidc's and x/oauth2's work, sessions scs's,
// signatures of cookies securecookie's: all are kept, and what they leave to
// their caller (nonce, azp, at_hash, bounds on what is read, one refresh at a
// time, a logout that nothing undoes) is done here. The stores are our own:
// scs's know no cluster, no idle time that a read extends in the same round
// trip, and no sessions by their subject.
//
// It knows no plugin and no Gin. Everything is safe for concurrent use.
package session
