package routing

import (
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

func clientAddr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})
}

func clientRequest(n int, by string) *http.Request {
	r := &http.Request{Header: http.Header{}}
	if by == "header:X-Tenant" {
		r.Header.Set("X-Tenant", "t"+strconv.Itoa(n))
	}
	return r
}

func TestAServiceMakesItsOwnRouteByTags(t *testing.T) {
	w := newWorld(t).announce("users", "sluice.path=/users/*").instances("users", "u1:sluice.path=/users/*")
	w.build()
	equal(t, "route", w.ask("/users/7"), "consul:users ok")
	equal(t, "serves", w.serves("users"), []string{"u1"})
}

func TestOfDisagreeingInstancesTheMostRecentlyRegisteredPassingOneWins(t *testing.T) {
	w := newWorld(t).announce("users", "sluice.path=/new/*", "sluice.path=/old/*").
		instances("users", "u1:sluice.path=/old/*", "u2:sluice.path=/new/*")
	w.build()
	equal(t, "new", w.ask("/new/1"), "consul:users ok")
	equal(t, "old", w.ask("/old/1"), "404")
	w.instances("users", "u1:sluice.path=/old/*").build() // the new one failed
	equal(t, "old again", w.ask("/old/1"), "consul:users ok")
}

func TestATagRouteStaysWithoutPassingInstances(t *testing.T) {
	w := newWorld(t).announce("users", "sluice.path=/users/*").instances("users", "u1:sluice.path=/users/*")
	w.build()
	w.instances("users").build()
	equal(t, "route", w.ask("/users/7"), "consul:users ok")
	equal(t, "serves", w.serves("users"), []string{"no healthy instance"})
	w.restart().build()
	equal(t, "also for a gateway that never saw one pass", w.ask("/users/7"), "consul:users ok")
}

func TestATagRouteOfAServiceThatLeftTheCatalogGoesAfterAGrace(t *testing.T) {
	w := newWorld(t).announce("users", "sluice.path=/users/*").instances("users", "u1:sluice.path=/users/*")
	w.build()
	w.announce("users").instances("users").build()
	equal(t, "at once", w.ask("/users/7"), "consul:users ok")
	w.now = w.now.Add(tagGrace - time.Second)
	w.build()
	equal(t, "within the grace", w.ask("/users/7"), "consul:users ok")
	w.now = w.now.Add(2 * time.Second)
	w.build()
	equal(t, "after it", w.ask("/users/7"), "404")
}

func TestWrongTagsKeepTheLastGoodDefinition(t *testing.T) {
	w := newWorld(t).announce("users", "sluice.path=/users/*").instances("users", "u1:sluice.path=/users/*")
	w.build()
	w.instances("users", "u1:sluice.path=/users/*", "u2:sluice.path=users").build()
	equal(t, "route", w.ask("/users/7"), "consul:users last_good")
	equal(t, "problems", w.problems(), []string{"consul:users invalid_tag last_good"})
	w.instances("users", "u1:sluice.path=/users/*").build()
	equal(t, "mended", w.ask("/users/7"), "consul:users ok")
	equal(t, "problems", w.problems(), []string{})
}

func TestWrongTagsFromTheStartKeepTheirPath(t *testing.T) {
	w := newWorld(t).put("routes/web", broad).announce("users", "sluice.path=/users/*", "sluice.priority=high").
		instances("users", "u1:sluice.path=/users/*,sluice.priority=high")
	w.build()
	equal(t, "route", w.ask("/users/7"), "consul:users invalid")
	equal(t, "other paths", w.ask("/x"), "web ok")
}

func TestAnEtcdRouteWinsOverATagRouteOfTheSameMatch(t *testing.T) {
	w := newWorld(t).announce("users", "sluice.path=/users/*").instances("users", "u1:sluice.path=/users/*")
	w.build()
	w.put("routes/users", `{"path":"/users/*","service":"users"}`).build()
	equal(t, "etcd", w.ask("/users/7"), "users ok")
	equal(t, "problems", w.problems(), []string{"consul:users conflict nothing"})
	w.remove("routes/users").build()
	equal(t, "tag again", w.ask("/users/7"), "consul:users ok")
}

func TestWithoutATagPrefixServicesMakeNoRoutes(t *testing.T) {
	w := newWorld(t).announce("users", "sluice.path=/users/*").instances("users", "u1:sluice.path=/users/*")
	w.deps.TagPrefix = ""
	w.build()
	equal(t, "route", w.ask("/users/7"), "404")
}
