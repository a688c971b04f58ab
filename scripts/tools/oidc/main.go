// Command oidc is an OpenID Connect provider for the tests: zitadel/oidc's
// protocol over users and clients that a test names. It keeps everything in
// memory and is told what to do under /control/, so it must listen on
// loopback only.
//
//	PUT  /control/config                   users, clients, lifetimes, as JSON
//	POST /control/rotate?alg=ES256&retire=true
//	                                       signs with a new key from now on;
//	                                       retire drops the old ones
//	POST /control/sign?typ=JWT             signs the claims in the body
//	POST /control/logout?user=NAME         ends a user's sessions everywhere and
//	                                       tells the clients (back-channel)
//	POST /control/revoke?user=NAME         ends them without telling anybody
//	GET  /control/calls                    how often each thing was asked for
package main

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9998", "loopback address to listen on")
	flag.Parse()
	if err := run(*listen); err != nil {
		log.Fatal(err)
	}
}

func run(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("read -listen: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return errors.New("-listen is no loopback address")
	}
	issuer := "http://" + listen
	s, err := newStorage(issuer)
	if err != nil {
		return err
	}
	config := &op.Config{
		CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true,
		SupportedScopes:          []string{"openid", "profile", "email", "offline_access"},
		DefaultLogoutRedirectURI: "/logged-out", BackChannelLogoutSupported: true, BackChannelLogoutSessionSupported: true,
	}
	_, _ = rand.Read(config.CryptoKey[:])
	provider, err := op.NewProvider(config, s, op.StaticIssuer(issuer), op.WithAllowInsecure())
	if err != nil {
		return fmt.Errorf("make the provider: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.HandleFunc("/logged-out", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "logged out") })
	login := op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(s.login(op.AuthCallbackURL(provider)))
	mux.HandleFunc("/login", login)
	s.control(mux)
	server := http.Server{Addr: listen, Handler: s.counting(mux), ReadHeaderTimeout: 10 * time.Second}
	log.Printf("issuer %s", issuer)
	return server.ListenAndServe()
}
