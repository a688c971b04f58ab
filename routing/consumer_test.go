package routing

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func consumerDoc(key string, groups ...string) string {
	digest := sha256.Sum256([]byte(key))
	return fmt.Sprintf(`{"key_sha256":%q,"groups":["%s"]}`, hex.EncodeToString(digest[:]), strings.Join(groups, `","`))
}

func TestConsumersAreFoundByTheirKeyUntilTheyAreDeleted(t *testing.T) {
	w := newWorld(t).put("consumers/alice", consumerDoc("a", "gold")).put("consumers/bob", consumerDoc("b", "silver"))
	w.build()
	who := func(key string) string {
		c := w.table.Consumers().ByKey(sha256.Sum256([]byte(key)))
		if c == nil {
			return "nobody"
		}
		return c.Name + " " + strings.Join(c.Groups, ",")
	}
	equal(t, "alice", who("a"), "alice gold")
	equal(t, "bob", who("b"), "bob silver")
	equal(t, "a key of nobody's", who("c"), "nobody")
	was := w.table.Consumers()
	w.put("routes/web", broad).build()
	equal(t, "the same consumers after a route changed", w.table.Consumers() == was, true)
	w.put("consumers/alice", `{"key_sha256":"short"}`).build()
	equal(t, "the last good version", who("a"), "alice gold")
	w.put("consumers/alice", consumerDoc("a2", "gold")).build()
	equal(t, "the key that was replaced", who("a"), "nobody")
	w.remove("consumers/bob").build()
	equal(t, "the consumer that was deleted", who("b"), "nobody")
	equal(t, "consumers left", w.table.Consumers().Len(), 1)
}

func TestOfTwoConsumersWithOneKeyTheOlderStays(t *testing.T) {
	w := newWorld(t).put("consumers/old", consumerDoc("k", "x"))
	w.build()
	w.put("consumers/new", consumerDoc("k", "y")).build()
	equal(t, "who has the key", w.table.Consumers().ByKey(sha256.Sum256([]byte("k"))).Name, "old")
	equal(t, "problems", w.problems(), []string{"/sluice/consumers/new conflict nothing"})
	w.put("routes/web", broad).build()
	equal(t, "problems after another change", len(w.problems()), 1)
	w.remove("consumers/old").build()
	equal(t, "who has the key then", w.table.Consumers().ByKey(sha256.Sum256([]byte("k"))).Name, "new")
	equal(t, "problems then", len(w.problems()), 0)
}
