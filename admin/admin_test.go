package admin

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/discovery/discoverytest"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an admin listener over a table that the test builds.
type rig struct {
	t        *testing.T
	table    *routing.Table
	deps     routing.Deps
	registry *prometheus.Registry
	metrics  *Metrics
	events   *Events
	server   *Server
	notReady string
}

// Table makes the rig what holds the table in force.
func (r *rig) Table() *routing.Table { return r.table }

func newRig(t *testing.T, token string) *rig {
	t.Helper()
	r := &rig{t: t, registry: prometheus.NewRegistry(), events: NewEvents()}
	hub := discovery.NewHub(slog.New(slog.DiscardHandler), discoverytest.NewSource(discovery.SourceEtcd), discoverytest.NewSource(discovery.SourceConsul))
	var err error
	if r.metrics, err = NewMetrics(r.registry, r, hub); err != nil {
		t.Fatal(err)
	}
	pool := balance.NewPool(balance.WithObserver(r.metrics))
	r.deps = routing.Deps{Plugins: middleware.NewPlugins(middleware.NewRegistry(slog.New(slog.DiscardHandler), nil)), Pool: pool, Now: time.Now}
	// The client tells of the first instance only.
	connections := func(_ routing.Upstream, address string) (open, idle int, ok bool) {
		return 5, 3, address == "10.0.0.1:80"
	}
	if err := RegisterConnections(r.registry, r, connections); err != nil {
		t.Fatal(err)
	}
	r.server = New(Config{Listen: "127.0.0.1:8081", Token: token, Gateway: "gw-1", Address: ":8080"}, Deps{
		Tables: r, Hub: hub, Pool: pool, Gatherer: r.registry, Plugins: r.deps.Plugins, Events: r.events, Connections: connections,
		Ready: func() (bool, string) { return r.notReady == "", r.notReady },
	})
	return r
}

// build makes the next table of documents, "kind/NAME" to value, and passing
// instances, all of the service orders.
func (r *rig) build(docs map[string]string, instances ...discovery.Instance) {
	var list []*discovery.Document
	for _, key := range slices.Sorted(maps.Keys(docs)) {
		kind, name, _ := strings.Cut(key, "/")
		list = append(list, &discovery.Document{Key: "/sluice/" + key, Kind: discovery.Kind(kind), Name: name,
			Source: discovery.SourceEtcd, Value: []byte(docs[key]), Revision: 7, Created: 7})
	}
	old := r.table
	r.table = routing.Build(old, discovery.Snapshot{States: map[string]discovery.State{
		discovery.SourceEtcd:   {Revision: 7, Documents: discovery.NewDocuments(list...)},
		discovery.SourceConsul: {Instances: map[discovery.ServiceRef][]discovery.Instance{{Name: "orders"}: instances}},
	}}, r.deps)
	r.metrics.Swapped(old, r.table)
	r.events.Swapped(old, r.table)
}

// shop is a table with something of everything.
func (r *rig) shop() {
	r.build(map[string]string{
		"routes/orders": `{"path":"/orders/*","service":"orders","hosts":["shop.test"],"methods":["GET"],"plugins":{"headers":{"request":{"set":{"X-A":"1"}}}}}`,
		"routes/broken": `{"path":"/broken","servise":"orders"}`,
		"active/orders": "blue",
	},
		discovery.Instance{ID: "n1/o1", Address: "10.0.0.1:80", Weight: 2, Tags: []string{"blue"}},
		discovery.Instance{ID: "n1/o2", Address: "10.0.0.2:80", Weight: 1, Tags: []string{"green"}})
}

// get asks for a page as curl on this host would; change may alter that.
func (r *rig) get(path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r.t.Helper()
	return r.send(http.MethodGet, path, change...)
}

func (r *rig) send(method, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(method, path, nil)
	req.Host = "127.0.0.1:8081"
	for _, c := range change {
		c(req)
	}
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	return w
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// items reads a list as plain JSON, moments left out.
func (r *rig) items(path string) []map[string]any {
	r.t.Helper()
	w := r.get(path)
	var list struct{ Items []map[string]any }
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != http.StatusOK {
		r.t.Fatalf("%s: %d %v\n%s", path, w.Code, err, w.Body)
	}
	if list.Items == nil {
		r.t.Fatalf("%s: no items, not even none: %s", path, w.Body)
	}
	for _, item := range list.Items {
		for _, moment := range []string{"since", "last_answer"} {
			if text, ok := item[moment].(string); ok {
				if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
					r.t.Errorf("%s: %s: %v", path, moment, err)
				}
				delete(item, moment)
			}
		}
		delete(item, "spec")
	}
	return list.Items
}

func equalJSON(t *testing.T, what string, got any, want string) {
	t.Helper()
	data, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != want {
		t.Errorf("%s:\ngot  %s\nwant %s", what, data, want)
	}
}

func TestEachListSaysWhatStands(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	for _, reused := range []bool{false, true, true} {
		r.table.Service("orders").All.Endpoints[0].Connected(reused)
	}
	for path, want := range map[string]string{
		"/api/v1/routes": `[{"hosts":[],"key":"/sluice/routes/broken","methods":[],"name":"broken","path":"/broken","plugins":[],"revision":7,"service":"","source":"etcd","state":"invalid"},` +
			`{"hosts":["shop.test"],"key":"/sluice/routes/orders","methods":["GET"],"name":"orders","path":"/orders/*","plugins":["headers"],"revision":7,"service":"orders","source":"etcd","state":"ok"}]`,
		"/api/v1/routes?name=none": `[]`,
		"/api/v1/services":         `[{"active":[{"subset":"blue","weight":100,"instances":1}],"circuit":"closed","in_flight":0,"instances":2,"name":"orders","protocol":"http"}]`,
		"/api/v1/instances?name=orders": `[{"address":"10.0.0.1:80","connections":{"idle":3,"in_use":2,"made":1,"open":5,"reused":2},"id":"n1/o1","in_flight":0,"reason":"","service":"orders","state":"healthy","tags":["blue"],"weight":2},` +
			`{"address":"10.0.0.2:80","connections":{"made":0,"reused":0},"id":"n1/o2","in_flight":0,"reason":"","service":"orders","state":"healthy","tags":["green"],"weight":1}]`,
		"/api/v1/instances?name=none": `[]`,
		"/api/v1/problems":            `[{"code":"invalid_field","key":"/sluice/routes/broken","message":"MESSAGE","revision":7,"serving":"nothing"}]`,
		"/api/v1/sources":             `[{"delivered":false,"name":"consul","revision":0,"up":false},{"delivered":false,"name":"etcd","revision":0,"up":false}]`,
	} {
		items := r.items(path)
		for _, item := range items {
			if m, ok := item["message"].(string); ok && strings.Contains(m, "servise") {
				item["message"] = "MESSAGE"
			}
			for i, a := range anyList(item["active"]) {
				share := a.(map[string]any)
				anyList(item["active"])[i] = struct {
					Subset    any `json:"subset"`
					Weight    any `json:"weight"`
					Instances any `json:"instances"`
				}{share["subset"], share["weight"], share["instances"]}
			}
		}
		equalJSON(t, path, items, want)
	}
}

func anyList(v any) []any {
	l, _ := v.([]any)
	return l
}

func TestAnInstanceThatLeftIsListedWhileItFinishes(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	pick, err := r.table.Service("orders").All.Picker.Pick(balance.Query{})
	if err != nil {
		t.Fatal(err)
	}
	r.build(map[string]string{"routes/orders": `{"path":"/orders/*","service":"orders"}`})
	r.deps.Pool.Retain(func(func(*balance.Endpoint) bool) {}, func(yield func(string) bool) { yield("orders") })
	items := r.items("/api/v1/instances")
	if len(items) != 1 || items[0]["state"] != "draining" || items[0]["in_flight"] != 1.0 {
		t.Errorf("while it finishes: %v", items)
	}
	pick.Done(balance.Success)
	if items := r.items("/api/v1/instances"); len(items) != 0 {
		t.Errorf("after it: %v", items)
	}
}

func TestEveryPageIsDocumentedAndEveryDocumentedPageServed(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct{ Responses map[string]any }
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "secret")
	r.shop()
	r.events.Close() // a stream that ends at once
	for _, p := range r.server.pages() {
		if _, ok := doc.Paths[p.path]; !ok && !strings.HasPrefix(p.path, "/debug/") {
			t.Errorf("%s is not documented", p.path)
		}
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			send := func(change ...func(*http.Request)) int {
				w := r.send(strings.ToUpper(method), path, change...)
				return w.Code
			}
			target := send(header("Authorization", "Bearer secret"))
			if path == "/api/v1/explain" { // without a URL it is a bad request
				path += "?url=http://shop.test/orders/1"
				if target != http.StatusBadRequest {
					t.Errorf("explain of nothing answers %d", target)
				}
				target = send(header("Authorization", "Bearer secret"))
			}
			if target != http.StatusOK || op.Responses["200"] == nil {
				t.Errorf("%s %s answers %d; documented are %v", method, path, target, slices.Sorted(maps.Keys(op.Responses)))
			}
			if code := send(); code != http.StatusOK && op.Responses["401"] == nil {
				t.Errorf("%s %s answers %d without the token, which is not documented", method, path, code)
			}
		}
	}
	if w := r.get("/api/v1/openapi.json", header("Authorization", "Bearer secret")); w.Body.String() != string(openAPI) {
		t.Error("openapi.json is not the description")
	}
}

func TestBeforeTheFirstTableEveryPageAnswers(t *testing.T) {
	r := newRig(t, "")
	for _, path := range []string{"routes", "services", "instances", "problems"} {
		equalJSON(t, path, r.items("/api/v1/"+path), `[]`)
	}
	if w := r.get("/api/v1/explain?url=http://a/"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("explain answers %d", w.Code)
	}
	if w := r.get("/metrics"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "sluice_table_generation 0") {
		t.Errorf("metrics: %d %s", w.Code, w.Body)
	}
	var s map[string]any
	if err := json.Unmarshal(r.get("/api/v1/status").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	delete(s, "updated_at")
	equalJSON(t, "status", s, `{"active":{},"address":":8080","gateway":"gw-1","generation":0,"held":[],"problems":[],"revision":0,"routes":0}`)
}

func TestExplainAnswersFromTheTableThatServes(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	for query, want := range map[string]string{
		"url=http://shop.test/orders/1":                 "/sluice/routes/orders",
		"method=get&url=http://shop.test/orders/1":      "/sluice/routes/orders",
		"url=http://other.test/orders/1":                "",
		"url=http://shop.test/orders/1&header=X-A:%20b": "/sluice/routes/orders",
	} {
		var e routing.Explanation
		if err := json.Unmarshal(r.get("/api/v1/explain?"+query).Body.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		got := ""
		if e.Winner != nil {
			got = e.Winner.Key
		}
		if got != want {
			t.Errorf("%s: won by %q, want %q", query, got, want)
		}
	}
	for _, query := range []string{"", "method=GET", "url=/a&header=nonsense"} {
		if w := r.get("/api/v1/explain?" + query); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"code":"bad_request"`) {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestReadyzSaysWhyNot(t *testing.T) {
	r := newRig(t, "")
	for reason, want := range map[string]string{
		"":                                 `200 {"status":"ready"}`,
		"draining":                         `503 {"reason":"draining","status":"not ready"}`,
		"source etcd has not delivered: x": `503 {"reason":"source etcd has not delivered: x","status":"not ready"}`,
	} {
		r.notReady = reason
		w := r.get("/readyz")
		var body any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		data, _ := json.Marshal(body)
		if got := strconv.Itoa(w.Code) + " " + string(data); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if w := r.get("/livez"); w.Code != http.StatusOK {
			t.Errorf("livez answers %d while %q", w.Code, reason)
		}
	}
}

func TestUnknownPagesAnswerAProblem(t *testing.T) {
	r := newRig(t, "")
	for _, path := range []string{"/nope", "/api/v1/routes/orders", "/api/v1/", "/api/v1/routes/../../etc"} {
		w := r.get(path)
		if w.Code < 300 || strings.Contains(w.Body.String(), "items") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	w := r.get("/nope")
	equalJSON(t, "type", w.Header().Get("Content-Type"), `"application/problem+json"`)
	equalJSON(t, "status", w.Code, `404`)
}

func TestTheStatusKeyIsBoundedWhateverIsWrong(t *testing.T) {
	r := newRig(t, "")
	docs := map[string]string{}
	var faults strings.Builder
	for n := range 200 {
		faults.WriteString(`"` + strings.Repeat("é", 100) + strconv.Itoa(n) + `":1,`)
	}
	for n := range 1000 {
		docs["routes/r"+strconv.Itoa(n)] = `{` + faults.String() + `"path":"/r` + strconv.Itoa(n) + `"}`
	}
	r.build(docs)
	if len(r.table.Problems()) != 1000 {
		t.Fatalf("%d problems", len(r.table.Problems()))
	}
	s := NewStatus("gw", ":80", r.table, time.Now())
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Problems) != maxStatusProblems || len(data) > 1<<20 {
		t.Errorf("%d problems in %d bytes", len(s.Problems), len(data))
	}
	if !strings.HasSuffix(s.Problems[0].Message, "…") || len(r.items("/api/v1/problems")) != 1000 {
		t.Error("the status is not cut, or the list is")
	}
}

func TestTheSameStatusIsNotWrittenAgain(t *testing.T) {
	r := newRig(t, "")
	r.shop()
	a := NewStatus("gw", ":80", r.table, time.Now())
	r.build(map[string]string{}, discovery.Instance{ID: "o1", Address: "10.0.0.1:80", Weight: 1})
	r.shop()
	b := NewStatus("gw", ":80", r.table, time.Now().Add(time.Hour))
	if a.Generation == b.Generation || !a.Same(b) {
		t.Errorf("another generation of the same is something new: %+v %+v", a, b)
	}
	for what, change := range map[string]func(*Status){
		"revision": func(s *Status) { s.Revision++ },
		"routes":   func(s *Status) { s.Routes++ },
		"problems": func(s *Status) { s.Problems = nil },
		"message":  func(s *Status) { s.Problems = []StatusProblem{{Message: "other"}} },
		"active":   func(s *Status) { s.Active = map[string]string{"orders": "green"} },
		"service":  func(s *Status) { s.Active = map[string]string{"users": "blue"} },
		"choice":   func(s *Status) { s.Undecided = []string{"orders"} },
		"held":     func(s *Status) { s.Held = []routing.Held{{Service: "orders"}} },
	} {
		c := b
		change(&c)
		if a.Same(c) {
			t.Errorf("another %s is the same", what)
		}
	}
}
