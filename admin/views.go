package admin

import (
	_ "embed" // the API's description
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing"
)

//go:embed openapi.json
var openAPI []byte

// Route is a route as /api/v1/routes shows it.
type Route struct {
	Name     string             `json:"name"`
	Source   string             `json:"source"`
	Key      string             `json:"key"`
	Revision int64              `json:"revision"`
	Hosts    []string           `json:"hosts"`
	Path     string             `json:"path"`
	Methods  []string           `json:"methods"`
	Service  string             `json:"service"`
	Subset   string             `json:"subset,omitempty"`
	Priority int                `json:"priority,omitempty"`
	Plugins  []string           `json:"plugins"`
	State    string             `json:"state"`
	Spec     *routing.RouteSpec `json:"spec,omitempty"`
}

// Service is a service as /api/v1/services shows it.
type Service struct {
	Name      string               `json:"name"`
	Source    string               `json:"source,omitempty"`
	Key       string               `json:"key,omitempty"`
	Revision  int64                `json:"revision,omitempty"`
	Protocol  string               `json:"protocol"`
	Instances int                  `json:"instances"`
	Active    []routing.Share      `json:"active"`
	Held      *routing.Held        `json:"held,omitempty"`
	LastKnown bool                 `json:"last_known,omitempty"`
	InFlight  int64                `json:"in_flight"`
	Circuit   string               `json:"circuit"`
	Spec      *routing.ServiceSpec `json:"spec,omitempty"`
}

// Instance is an instance as /api/v1/instances shows it.
type Instance struct {
	Service  string    `json:"service"`
	ID       string    `json:"id"`
	Address  string    `json:"address"`
	Weight   int       `json:"weight"`
	Tags     []string  `json:"tags"`
	State    string    `json:"state"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since,omitzero"`
	InFlight int64     `json:"in_flight"`

	Connections Connections `json:"connections"`
}

func (s *Server) routes(w http.ResponseWriter, r *http.Request) {
	out := []Route{}
	if t := s.deps.Tables.Table(); t != nil {
		for _, rt := range t.Routes() {
			if wanted(r, rt.Name) {
				out = append(out, s.route(rt))
			}
		}
	}
	writeList(w, out)
}

func (s *Server) route(r *routing.Route) Route {
	v := Route{
		Name: r.Name, Source: r.Source, Key: r.Key, Revision: r.Revision,
		Hosts: []string{}, Methods: []string{}, Plugins: []string{},
		Service: r.ServiceName, Subset: r.Subset, State: r.State,
	}
	if r.Spec != nil {
		v.Path, v.Priority, v.Spec = r.Spec.Path, r.Spec.Priority, r.Spec
		v.Hosts = append(v.Hosts, r.Spec.Hosts...)
		v.Methods = append(v.Methods, r.Spec.Methods...)
	}
	for i, name := range s.deps.Plugins.Names() {
		if i < len(r.Plugins) && r.Plugins[i] != nil {
			v.Plugins = append(v.Plugins, name)
		}
	}
	return v
}

func (s *Server) services(w http.ResponseWriter, r *http.Request) {
	out := []Service{}
	if t := s.deps.Tables.Table(); t != nil {
		held := map[string]*routing.Held{}
		for i, h := range t.Held() {
			held[h.Service] = &t.Held()[i]
		}
		for _, sv := range t.Services() {
			if !wanted(r, sv.Name) {
				continue
			}
			v := Service{
				Name: sv.Name, Source: sv.Source, Key: sv.Key, Revision: sv.Revision,
				Protocol: sv.Upstream.Protocol, Instances: len(sv.All.Instances),
				Active: append([]routing.Share{}, sv.Shares()...), Held: held[sv.Name], LastKnown: sv.LastKnown,
				InFlight: sv.Group.InFlight(), Circuit: "closed", Spec: sv.Spec,
			}
			if sv.Group.CircuitOpen() {
				v.Circuit = "open"
			}
			out = append(out, v)
		}
	}
	writeList(w, out)
}

func (s *Server) instances(w http.ResponseWriter, r *http.Request) {
	out := []Instance{}
	if t := s.deps.Tables.Table(); t != nil {
		for _, sv := range t.Services() {
			if wanted(r, sv.Name) {
				out = append(out, s.instancesOf(sv)...)
			}
		}
	}
	writeList(w, out)
}

// instancesOf lists what serves, then what is still finishing.
func (s *Server) instancesOf(sv *routing.Service) []Instance {
	var out []Instance
	live := map[string]bool{}
	for i, e := range sv.All.Endpoints {
		in := sv.All.Instances[i]
		state, reason, since := e.Status()
		live[in.ID+" "+in.Address] = true
		out = append(out, Instance{
			Service: sv.Name, ID: in.ID, Address: in.Address, Weight: in.Weight, Tags: append([]string{}, in.Tags...),
			State: state, Reason: reason, Since: since, InFlight: e.InFlight(),
			Connections: s.deps.Connections.of(sv.Upstream, e),
		})
	}
	for _, e := range s.deps.Pool.Endpoints(sv.Name) {
		if live[e.ID()+" "+e.Address()] {
			continue
		}
		state, reason, since := e.Status()
		out = append(out, Instance{
			Service: sv.Name, ID: e.ID(), Address: e.Address(), Tags: []string{},
			State: state, Reason: reason, Since: since, InFlight: e.InFlight(),
			Connections: s.deps.Connections.of(sv.Upstream, e),
		})
	}
	return out
}

func (s *Server) problems(w http.ResponseWriter, r *http.Request) {
	out := []routing.Problem{}
	if t := s.deps.Tables.Table(); t != nil {
		for _, p := range t.Problems() {
			if wanted(r, p.Key) || wanted(r, nameIn(p.Key)) {
				out = append(out, p)
			}
		}
	}
	writeList(w, out)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, NewStatus(s.cfg.Gateway, s.cfg.Address, s.deps.Tables.Table(), time.Now()))
}

func (s *Server) sources(w http.ResponseWriter, _ *http.Request) {
	writeList(w, append([]discovery.SourceStatus{}, s.deps.Hub.Status()...))
}

// explain asks the serving table what it would do with a request.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	method, target := q.Get("method"), q.Get("url")
	if method == "" {
		method = http.MethodGet
	}
	if target == "" {
		writeProblem(w, http.StatusBadRequest, "bad_request", "url is missing: ?method=GET&url=http://host/path")
		return
	}
	header := http.Header{}
	for _, h := range q["header"] {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			writeProblem(w, http.StatusBadRequest, "bad_request", fmt.Sprintf("header %q is not Name: value", h))
			return
		}
		header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	t := s.deps.Tables.Table()
	if t == nil {
		writeProblem(w, http.StatusServiceUnavailable, "route_not_found", "no table yet: no source has delivered")
		return
	}
	host, path, query := splitURL(target)
	writeJSON(w, http.StatusOK, t.Explain(&routing.Request{
		Method: strings.ToUpper(method), Host: host, Path: routing.Path{Forward: path}, RawQuery: query, Header: header,
	}, s.deps.Plugins.Names()))
}

// splitURL takes a URL apart without changing its path, so that explain sees
// the very bytes that a client would send.
func splitURL(target string) (host, path, query string) {
	rest := target
	if _, after, ok := strings.Cut(target, "://"); ok {
		rest = after
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		host, rest = rest[:end], rest[end:]
	}
	path, query, _ = strings.Cut(rest, "?")
	if path == "" {
		path = "/"
	}
	return host, path, query
}

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI)
}

// wanted says whether ?name= leaves name in.
func wanted(r *http.Request, name string) bool {
	want := r.URL.Query().Get("name")
	return want == "" || want == name
}

// nameIn is the name of the document under key: /sluice/routes/NAME,
// routes/NAME.yaml in a directory, or consul:NAME.
func nameIn(key string) string {
	if name, ok := strings.CutPrefix(key, discovery.SourceConsul+":"); ok {
		return name
	}
	name := path.Base(key)
	if !path.IsAbs(key) { // a file
		switch ending := path.Ext(name); ending {
		case ".yaml", ".yml", ".json", ".txt":
			name = strings.TrimSuffix(name, ending)
		}
	}
	return name
}

func writeList[T any](w http.ResponseWriter, items []T) {
	writeJSON(w, http.StatusOK, struct {
		Items []T `json:"items"`
	}{items})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client has gone, and nothing is left to tell
}

func writeProblem(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "urn:sluice:" + url.PathEscape(code), "title": http.StatusText(status),
		"status": status, "code": code, "detail": detail,
	})
}
