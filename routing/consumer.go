package routing

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// Consumer is a caller of an API: a document under /sluice/consumers/NAME.
// It is immutable.
type Consumer struct {
	Name   string
	Groups []string
}

// Consumers is every consumer of a table. It is immutable; a consumer that
// was deleted is absent from the next table.
type Consumers struct {
	byKey  map[[sha256.Size]byte]*Consumer
	byName map[string]*Consumer
}

// ByKey returns the consumer whose API key has this SHA-256, or nil. Looking
// a digest up takes time that depends on nothing an attacker could aim at.
func (c *Consumers) ByKey(digest [sha256.Size]byte) *Consumer {
	if c == nil {
		return nil
	}
	return c.byKey[digest]
}

// ByName returns the named consumer, or nil.
func (c *Consumers) ByName(name string) *Consumer {
	if c == nil {
		return nil
	}
	return c.byName[name]
}

// Len is the number of consumers.
func (c *Consumers) Len() int {
	if c == nil {
		return 0
	}
	return len(c.byName)
}

// Consumers returns the consumers of t; it may be nil.
func (t *Table) Consumers() *Consumers { return t.memory.consumers }

// Identity is who a request was found to come from. It may be shared by
// requests and is immutable.
type Identity struct {
	// Plugin is the one that vouches for it.
	Plugin string
	// Subject is the token's or the user's name; Consumer that of a document
	// under consumers/, where there is one.
	Subject  string
	Consumer string
	Groups   []string
	Scopes   []string
	// Claims are those of a token, as JSON decodes them; a number is a
	// json.Number, since a float64 does not hold every identifier.
	Claims map[string]any
}

// collectConsumers indexes the consumers. Of two with the same key the older
// document stays.
func (d *Draft) collectConsumers(before memory) {
	changed := slices.ContainsFunc(d.changed, func(id entryID) bool { return id.kind == discovery.KindConsumer })
	if d.prev != nil && !changed {
		d.memory.consumers, d.memory.clashes = before.consumers, before.clashes
		return
	}
	all := slices.SortedFunc(maps.Values(d.memory.entries[discovery.KindConsumer]), func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.doc.Created, b.doc.Created), cmp.Compare(a.doc.Key, b.doc.Key))
	})
	c := &Consumers{
		byKey:  make(map[[sha256.Size]byte]*Consumer, len(all)),
		byName: make(map[string]*Consumer, len(all)),
	}
	for _, e := range all {
		if e.consumer == nil {
			continue
		}
		var digest [sha256.Size]byte
		if n, err := hex.Decode(digest[:], []byte(e.consumer.KeySHA256)); err != nil || n != len(digest) {
			continue // decoding has refused it
		}
		if other := c.byKey[digest]; other != nil {
			d.memory.clashes = append(d.memory.clashes, consumerClash(e, other, before, d.now))
			continue
		}
		consumer := &Consumer{Name: e.doc.Name, Groups: e.consumer.Groups}
		c.byKey[digest], c.byName[consumer.Name] = consumer, consumer
	}
	d.memory.consumers = c
}

func consumerClash(e *entry, other *Consumer, before memory, now time.Time) Problem {
	p := Problem{Key: e.doc.Key, Revision: e.doc.Revision, Code: ProblemConflict, Since: now, Serving: ServingNothing,
		Message: "key_sha256: consumer " + other.Name + " already has this key; the older stays"}
	for _, old := range before.clashes {
		if old.Key == p.Key {
			p.Since = old.Since
		}
	}
	return p
}
