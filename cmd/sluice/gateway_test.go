package main

import (
	"log/slog"
	"testing"

	"github.com/sluice-gateway/sluice/configs"
)

// A gateway that listens on https alone could not be made while it was to
// register itself, and had no address in its status.
func TestAGatewayWithHTTPSAloneHasAnAddress(t *testing.T) {
	clean(t)
	cfg, err := configs.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = configs.Listen{HTTPS: "10.0.0.5:8443"}
	gw, err := newGateway(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer gw.forwarder.Close()
	if gw.registrar == nil || gw.address() != "10.0.0.5:8443" {
		t.Errorf("registrar %v, address %q", gw.registrar, gw.address())
	}
	cfg.Listen.HTTP = ":8080"
	if both, err := newGateway(cfg, slog.New(slog.DiscardHandler)); err != nil || both.address() != ":8080" {
		t.Errorf("with both: %v", err)
	}
}
