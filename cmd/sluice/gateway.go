package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/sluice-gateway/sluice/admin"
	"github.com/sluice-gateway/sluice/configs"
	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/consul"
	"github.com/sluice-gateway/sluice/discovery/etcd"
	"github.com/sluice-gateway/sluice/discovery/file"
	"github.com/sluice-gateway/sluice/discovery/state"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/proxy"
	"github.com/sluice-gateway/sluice/proxy/healthcheck"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// gateway is every part, made and wired, before anything runs.
type gateway struct {
	cfg configs.Config
	log *slog.Logger

	hub       *discovery.Hub
	consul    *consul.Source // nil where switched off
	registrar *consul.Registrar
	saver     *state.Saver
	router    *routing.Router
	checker   *healthcheck.Checker
	redis     *store.Redis // nil without one
	registry  *middleware.Registry
	forwarder *proxy.Forwarder
	engine    *middleware.Engine
	server    *middleware.Server
	events    *admin.Events
	metrics   *admin.Metrics
	admin     *http.Server
	publisher *etcd.StatusPublisher // nil without etcd
	swapped   chan struct{}         // a table was swapped in; for status
	// checkTLS is what health checks speak TLS with: the same pointer for as
	// long as the settings are the same. Only swaps use it.
	checkTLS map[routing.TLSSpec]*tls.Config

	draining atomic.Bool
	synced   atomic.Bool // every source has delivered; stays so
}

// tables finds the router that is made later than those who ask it.
type tables struct{ gw *gateway }

func (t tables) Table() *routing.Table { return t.gw.router.Table() }

// newGateway makes the parts. It opens no listener and starts nothing.
func newGateway(cfg configs.Config, log *slog.Logger) (*gateway, error) {
	gw := &gateway{cfg: cfg, log: log, swapped: make(chan struct{}, 1)}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	kept, remembered, err := gw.makeSources()
	if err != nil {
		return nil, err
	}
	if gw.metrics, err = admin.NewMetrics(registry, tables{gw}, gw.hub); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	gw.events = admin.NewEvents()
	pool := balance.NewPool(balance.WithObserver(gw.metrics))
	if cfg.Redis.Address != "" {
		store.LogTo(log)
		if gw.redis, err = store.New(cfg.Redis, log); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
	}
	gw.registry = middleware.NewRegistry(log, gw.redis)
	plugins := middleware.NewPlugins(gw.registry)
	if gw.forwarder, err = proxy.New(proxy.Config{}, log, gw.metrics); err != nil {
		return nil, err
	}
	if err = admin.RegisterConnections(registry, tables{gw}, gw.forwarder.Connections); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	gw.makeRouter(pool, plugins, remembered, kept)
	gw.checker = healthcheck.New(log)
	if gw.engine, err = middleware.New(cfg.Engine(), middleware.Deps{
		Plugins: plugins, Tables: gw.router, Forwarder: gw.forwarder, Registerer: registry, Log: log,
	}); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if gw.server, err = middleware.NewServer(cfg.Server(), gw.engine, registry, log); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	gw.makeAdmin(registry, pool, plugins)
	return gw, gw.makeStatus()
}

// makeSources makes the sources, the hub and, with a state directory, what an
// earlier run left behind.
func (gw *gateway) makeSources() (*state.Store, routing.Remembered, error) {
	var sources []discovery.Source
	var remembered routing.Remembered
	if gw.cfg.Consul.Address != "" {
		s, err := consul.New(gw.cfg.Consul.Config, gw.log)
		if err != nil {
			return nil, remembered, fmt.Errorf("configuration: %w", err)
		}
		gw.consul = s
		sources = append(sources, s)
	}
	if gw.cfg.Etcd.Enabled() {
		s, err := etcd.New(gw.cfg.Etcd, gw.log)
		if err != nil {
			return nil, remembered, fmt.Errorf("configuration: %w", err)
		}
		sources = append(sources, s)
	}
	if gw.cfg.File.Path != "" {
		s, err := file.New(file.Config{Path: gw.cfg.File.Path}, gw.log)
		if err != nil {
			return nil, remembered, fmt.Errorf("configuration: %w", err)
		}
		sources = append(sources, s)
	}
	gw.hub = discovery.NewHub(gw.log, sources...)
	if gw.cfg.StateDir == "" {
		return nil, remembered, nil
	}
	store, err := state.Open(gw.cfg.StateDir, gw.log)
	if err != nil {
		return nil, remembered, fmt.Errorf("state_dir: %w", err)
	}
	gw.saver = state.NewSaver(store, gw.log)
	for _, s := range sources {
		if s.Name() == discovery.SourceFile {
			continue // the directory is here or it is not
		}
		st, saved, err := store.Load(s.Name())
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				gw.log.Error("stored state cannot be used", "source", s.Name(), "error", err)
			}
			continue
		}
		gw.log.Info("stored state found", "source", s.Name(), "saved", saved, "revision", st.Revision)
		gw.hub.Fallback(s.Name(), st)
		if s.Name() == discovery.SourceConsul {
			gw.consul.Remember(st)
		}
	}
	if extra, err := store.LoadExtra(rememberedName); err == nil {
		if err := json.Unmarshal(extra, &remembered); err != nil {
			gw.log.Error("stored choices cannot be used", "error", err)
		}
	}
	return store, remembered, nil
}

// rememberedName is the state directory's entry for routing.Remembered.
const rememberedName = "remembered"

// makeRouter makes the router and hangs on every swap what follows from it.
func (gw *gateway) makeRouter(pool *balance.Pool, plugins *middleware.Plugins, remembered routing.Remembered, kept *state.Store) {
	deps := routing.Deps{
		Plugins: plugins, Pool: pool, Defaults: gw.cfg.RoutingDefaults(), Now: time.Now, Remembered: remembered,
	}
	var watcher routing.Watcher
	if gw.consul != nil {
		watcher = gw.consul
		if gw.cfg.Consul.SelfRegisteredRoutes {
			deps.TagPrefix = gw.cfg.Consul.TagPrefix
		}
	}
	follow := []func(old, new *routing.Table){
		gw.metrics.Swapped, gw.events.Swapped, plugins.Swapped, gw.checkInstances, gw.forwarder.Swapped,
		func(_, _ *routing.Table) {
			select {
			case gw.swapped <- struct{}{}:
			default:
			}
		},
	}
	if kept != nil {
		follow = append(follow, gw.save)
	}
	gw.router = routing.NewRouter(gw.hub, watcher, deps, gw.log, follow...)
}

// checkInstances hands the health checker the endpoints of services that ask
// for active checks.
func (gw *gateway) checkInstances(_, t *routing.Table) {
	var targets []healthcheck.Target
	known := gw.checkTLS
	gw.checkTLS = map[routing.TLSSpec]*tls.Config{}
	for _, s := range t.Services() {
		h := s.HealthCheck
		if h == nil {
			continue
		}
		spec := s.Upstream.TLS
		if gw.checkTLS[spec] = known[spec]; gw.checkTLS[spec] == nil {
			config, err := proxy.TLSConfig(spec)
			if err != nil {
				gw.log.Error("health checks cannot run", "service", s.Name, "error", err)
				continue
			}
			gw.checkTLS[spec] = config
		}
		for _, e := range s.All.Endpoints {
			targets = append(targets, healthcheck.Target{
				Endpoint: e, Protocol: s.Upstream.Protocol, TLS: gw.checkTLS[spec],
				Spec: healthcheck.Spec{
					Type: h.Type, Path: h.Path, Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout),
					UnhealthyAfter: h.UnhealthyAfter, HealthyAfter: h.HealthyAfter,
				},
			})
		}
	}
	gw.checker.Update(targets)
}

// save stores what a cold start needs.
func (gw *gateway) save(_, t *routing.Table) {
	for name, st := range t.Snapshot().States {
		if !st.Stored && name != discovery.SourceFile {
			gw.saver.Save(name, st)
		}
	}
	remembered, err := json.Marshal(t.Remembered())
	if err != nil {
		gw.log.Error("choices in effect cannot be stored", "error", err)
		return
	}
	gw.saver.SaveExtra(rememberedName, remembered)
}

func (gw *gateway) makeAdmin(registry *prometheus.Registry, pool *balance.Pool, plugins routing.Plugins) {
	gw.admin = &http.Server{
		Handler: admin.New(
			admin.Config{
				Listen: gw.cfg.Admin.Listen, Token: gw.cfg.Admin.Token.Reveal(),
				Gateway: gw.cfg.Name, Address: gw.address(),
			},
			admin.Deps{
				Tables: gw.router, Hub: gw.hub, Pool: pool, Ready: gw.ready, Gatherer: registry,
				Plugins: plugins, Events: gw.events, Connections: gw.forwarder.Connections, Log: gw.log,
			}),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(gw.log.Handler(), slog.LevelDebug),
	}
	gw.admin.RegisterOnShutdown(gw.events.Close)
}

// address is where others find this gateway's traffic.
func (gw *gateway) address() string { return cmp.Or(gw.cfg.Listen.HTTP, gw.cfg.Listen.HTTPS) }

// makeStatus makes what tells others about this gateway: its status key in
// etcd and its registration in Consul.
func (gw *gateway) makeStatus() error {
	var err error
	if gw.cfg.Etcd.Enabled() {
		if gw.publisher, err = etcd.NewStatusPublisher(gw.cfg.Etcd, gw.cfg.Name, gw.log); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
	}
	if gw.consul == nil || !gw.cfg.Consul.Register {
		return nil
	}
	host, portText, err := net.SplitHostPort(gw.address())
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("listen: port: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "" // the node's address
	}
	gw.registrar, err = consul.NewRegistrar(gw.cfg.Consul.Config, consul.RegistrationConfig{
		ID: gw.cfg.Name, Name: "sluice", Address: host, Port: port,
		CheckURL: "http://" + reachable(gw.cfg.Admin.Listen) + "/readyz",
	}, gw.log)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// reachable turns a listen address into one to call from this host.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// ready says whether traffic may come: every source has delivered, Consul has
// answered for every service that routes name, and the gateway is not leaving.
func (gw *gateway) ready() (bool, string) {
	switch {
	case gw.draining.Load():
		return false, "draining"
	case gw.synced.Load():
		return true, ""
	}
	t := gw.router.Table()
	for _, s := range gw.hub.Status() {
		if !s.Delivered {
			return false, "source " + s.Name + " has not delivered: " + cmp.Or(s.Error, "no answer yet")
		}
		if t == nil || !t.Knows(s.Name) {
			return false, "the first table is being built"
		}
	}
	if gw.consul != nil && !gw.consul.Synced() {
		return false, "source consul has not answered for every service yet"
	}
	gw.synced.Store(true)
	return true, ""
}

// publishStatus writes the status key whenever a swap changed it.
func (gw *gateway) publishStatus(ctx context.Context) error {
	var last admin.Status
	published := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-gw.swapped:
		}
		s := admin.NewStatus(gw.cfg.Name, gw.address(), gw.router.Table(), time.Now())
		if published && s.Same(last) {
			continue
		}
		value, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("write status: %w", err)
		}
		gw.publisher.Publish(value)
		last, published = s, true
	}
}
