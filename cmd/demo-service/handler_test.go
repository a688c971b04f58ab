package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func newTestHandler() *handler {
	return newHandler(options{name: "orders", id: "orders-1", tags: []string{"v2", "green"}})
}

func TestAnswerTellsWhatWasReceived(t *testing.T) {
	req := httptest.NewRequest("PUT", "http://shop.example/orders/a%2Fb?x=1&x=2&y=", nil)
	req.Header.Set("X-Request-ID", "r1")
	res := httptest.NewRecorder()
	newTestHandler().ServeHTTP(res, req)

	var got answer
	if err := json.Unmarshal(res.Body.Bytes(), &got); err != nil {
		t.Fatalf("decode %q: %v", res.Body, err)
	}
	want := answer{
		Service: "orders", Instance: "orders-1", Colour: "green",
		Method: "PUT", Proto: "HTTP/1.1", Host: "shop.example", Path: "/orders/a%2Fb",
		Query:   url.Values{"x": {"1", "2"}, "y": {""}},
		Headers: http.Header{"X-Request-Id": {"r1"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if id := res.Header().Get("X-Instance"); id != "orders-1" {
		t.Errorf("X-Instance is %q, want orders-1", id)
	}
}

func TestPathsThatDoSomethingElse(t *testing.T) {
	tests := []struct {
		name, method, target string
		want                 int
	}{
		{"a status is given back", "GET", "/status/418", 418},
		{"a status is given back behind a prefix", "GET", "/orders/status/503", 503},
		{"a status that is no final one is refused", "GET", "/status/101", 400},
		{"a status that is no number is refused", "GET", "/status/ok", 400},
		{"204 has no body", "GET", "/status/204", 204},
		{"slow answers at last", "GET", "/orders/slow?ms=1", 200},
		{"slow takes no negative time", "GET", "/slow?ms=-1", 400},
		{"slow takes no word", "GET", "/slow?ms=long", 400},
		{"a stream needs a count", "GET", "/stream?count=0", 400},
		{"a stream takes no negative time", "GET", "/stream?ms=-1", 400},
		{"health is good at first", "GET", "/healthz", 200},
		{"health takes no nonsense", "POST", "/healthz?status=up", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := httptest.NewRecorder()
			newTestHandler().ServeHTTP(res, httptest.NewRequest(tt.method, tt.target, nil))
			if res.Code != tt.want {
				t.Errorf("%s %s: got %d, want %d", tt.method, tt.target, res.Code, tt.want)
			}
			if tt.want == 204 && res.Body.Len() > 0 {
				t.Errorf("a 204 has the body %q", res.Body)
			}
		})
	}
}

func TestHealthIsWhatItWasSetTo(t *testing.T) {
	h := newTestHandler()
	res := httptest.NewRecorder()
	h.ServeHTTP(res, httptest.NewRequest("POST", "/healthz?status=503", nil))
	if res.Code != http.StatusNoContent {
		t.Fatalf("setting it: got %d, want 204", res.Code)
	}
	res = httptest.NewRecorder()
	h.ServeHTTP(res, httptest.NewRequest("GET", "/healthz", nil))
	if res.Code != http.StatusServiceUnavailable || h.healthy() {
		t.Errorf("got %d, healthy %t; want 503, false", res.Code, h.healthy())
	}
}

func TestStreamSendsEachEventAtOnce(t *testing.T) {
	server := httptest.NewServer(newTestHandler())
	defer server.Close()
	// An hour between events: the first can only come if it is not held back.
	res, err := http.Get(server.URL + "/orders/stream?count=2&ms=3600000")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q, want text/event-stream", got)
	}
	lines := bufio.NewScanner(res.Body)
	var got []string
	for len(got) < 2 && lines.Scan() {
		got = append(got, lines.Text())
	}
	want := []string{"id: 1", "data: orders-1 1 of 2"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEchoAnswersWhileTheBodyStillArrives(t *testing.T) {
	server := httptest.NewServer(newTestHandler())
	defer server.Close()
	body, send := io.Pipe()
	req, err := http.NewRequest("POST", server.URL+"/orders/echo", body)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(send, "first ") }()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, len("first "))
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatalf("the echo of the first part: %v", err)
	}
	if _, err := io.WriteString(send, "second"); err != nil {
		t.Fatal(err)
	}
	send.Close()
	rest, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(first) + string(rest); got != "first second" {
		t.Errorf("got %q back", got)
	}
}

func TestCommandLine(t *testing.T) {
	none := func(string) string { return "" }
	tests := []struct {
		name string
		args []string
		want string // in what is printed
	}{
		{"an argument is refused", []string{"orders"}, `unexpected argument "orders"`},
		{"an empty name is refused", []string{"-name", ""}, "-name: must not be empty"},
		{"an unknown check is refused with the known ones", []string{"-check", "tcp"}, `-check: "tcp" is none of http, ttl, none`},
		{"a short http interval is refused", []string{"-interval", "200ms"}, "-interval: 200ms is too short"},
		{"no time between reports is refused", []string{"-check", "ttl", "-interval", "0s"}, "-interval: 0s is too short"},
		{"a negative weight is refused", []string{"-weight", "-1"}, "-weight: -1 is negative"},
		{"a negative delay is refused", []string{"-delay", "-1s"}, "must not be negative"},
		{"metadata needs a key", []string{"-meta", "=x"}, "want key=value"},
		{"an address needs a port", []string{"-listen", "127.0.0.1"}, "-listen:"},
		{"an agent that is no URL is refused", []string{"-consul", "ftp://a"}, `-consul: "ftp://a" is no http or https URL`},
		{"an unknown flag is refused", []string{"-colour", "blue"}, "-colour"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var printed strings.Builder
			err := run(t.Context(), tt.args, none, io.Discard, &printed)
			if err != errUsage {
				t.Errorf("got error %v, want %v", err, errUsage)
			}
			if !strings.Contains(printed.String(), tt.want) {
				t.Errorf("printed %q, want %q in it", printed.String(), tt.want)
			}
		})
	}
}

func TestCommandLineReadsWhatConsulsToolsRead(t *testing.T) {
	env := map[string]string{"CONSUL_HTTP_ADDR": "10.0.0.1:8500", "CONSUL_HTTP_TOKEN": "secret"}
	got, err := parseOptions([]string{"-tags", "sluice.methods=GET,POST", "-tags", "blue", "-meta", "version=a=b"},
		func(k string) string { return env[k] }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want, err := parseOptions(nil, func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want.consul, want.token = "http://10.0.0.1:8500", "secret"
	want.tags = []string{"sluice.methods=GET,POST", "blue"}
	want.meta = map[string]string{"version": "a=b"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
