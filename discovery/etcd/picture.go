package etcd

import (
	"bytes"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// lossGrace is how long documents serve on after the store came back empty
// and with another history: long enough to notice and restore it.
const lossGrace = 30 * time.Second

// picture is what the source knows of the store. One goroutine owns it.
type picture struct {
	known    bool
	cluster  uint64
	revision int64
	// docs are what the store holds at revision.
	docs *discovery.Documents
	// lost are the documents of a store that lost its data: until then they
	// stand beside what the store holds.
	lost  *discovery.Documents
	until time.Time
	// shown is what was reported last.
	shown *discovery.Documents
}

// wentBack reports whether the store has another history than the one that
// the picture stands for.
func (p *picture) wentBack(cluster uint64, revision int64) bool {
	return p.known && (cluster != p.cluster || revision < p.revision)
}

// reuse returns the document that the picture holds already where d is the
// same, so that whoever compares by identity sees no change.
func (p *picture) reuse(d *discovery.Document) (*discovery.Document, bool) {
	old := p.docs.Get(d.Key)
	if old == nil || old.Revision != d.Revision || old.Created != d.Created || !bytes.Equal(old.Value, d.Value) {
		return d, false
	}
	return old, true
}

// adopt takes the whole content of the store. It reports whether documents
// were lost with the store's data and are kept for a while.
func (p *picture) adopt(cluster uint64, revision int64, docs []*discovery.Document, now time.Time) (lost bool) {
	back := p.wentBack(cluster, revision)
	same := p.docs.Len() == len(docs)
	for i, d := range docs {
		var kept bool
		if docs[i], kept = p.reuse(d); !kept {
			same = false
		}
	}
	if back && len(docs) == 0 && p.lost == nil && p.shown.Len() > 0 {
		p.lost, p.until, lost = p.shown, now.Add(lossGrace), true
	}
	if !same || p.docs == nil {
		p.docs = discovery.NewDocuments(docs...)
	}
	p.known, p.cluster, p.revision = true, cluster, revision
	return lost
}

// change takes the events of whole revisions, up to revision: documents by
// key, nil where the key was deleted.
func (p *picture) change(revision int64, docs map[string]*discovery.Document) {
	p.revision = max(p.revision, revision)
	var put []*discovery.Document
	var remove []string
	for key, d := range docs {
		if d == nil {
			if p.docs.Get(key) != nil {
				remove = append(remove, key)
			}
			continue
		}
		if kept, same := p.reuse(d); !same {
			put = append(put, kept)
		}
	}
	if len(put)+len(remove) == 0 {
		return
	}
	p.docs = p.docs.With(put, remove)
	if p.lost != nil {
		p.lost = p.lost.With(nil, remove)
	}
}

// show returns what serves now and whether that differs from what was
// reported before.
func (p *picture) show(now time.Time) (*discovery.Documents, bool) {
	if p.lost != nil && !now.Before(p.until) {
		p.lost = nil
	}
	next := p.docs
	if p.lost != nil {
		next = overlay(p.shown, p.lost, p.docs)
	}
	changed := next != p.shown
	p.shown = next
	return next, changed
}

// overlay lays docs over lost, and returns shown where that is the same.
func overlay(shown, lost, docs *discovery.Documents) *discovery.Documents {
	next := lost.With(docs.Sorted(), nil)
	if next.Len() != shown.Len() {
		return next
	}
	for d := range next.All {
		if shown.Get(d.Key) != d {
			return next
		}
	}
	return shown
}
