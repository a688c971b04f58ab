// Package keys holds the keys that tokens are checked with: a secret, the
// public keys of a PEM file, or a key set that its issuer publishes (RFC 7517)
// at an address which OpenID Connect discovery may name.
//
// A Set is immutable. It binds each key to the algorithms that suit it, so
// that what a token says about itself never decides how a key is used: a
// public key is no HMAC secret, and a key set that anybody can read gives no
// secrets at all (RFC 8725 sections 2.1 and 3.1).
//
// A Remote follows a published set. It fetches in the background; requests
// read the newest good set, and wait only for a fetch that is under way, never
// for the time when another one is due.
package keys
