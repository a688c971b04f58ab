package etcd

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

func doc(key, value string, revision int64) *discovery.Document {
	return &discovery.Document{Key: key, Value: []byte(value), Revision: revision, Created: revision}
}

func TestLostDocumentsServeForTheGraceAndNoLonger(t *testing.T) {
	now := time.Unix(1000, 0)
	var p picture
	p.adopt(1, 50, []*discovery.Document{doc("a", "1", 40), doc("b", "1", 41)}, now)
	before, _ := p.show(now)

	if !p.adopt(1, 1, nil, now) {
		t.Error("an empty store of another history is not taken as a loss")
	}
	if docs, changed := p.show(now); changed || docs != before {
		t.Error("the loss shows at once")
	}
	p.change(2, map[string]*discovery.Document{"a": doc("a", "2", 2)})
	docs, changed := p.show(now.Add(lossGrace - 1))
	if !changed || docs.Get("a").Revision != 2 || docs.Get("b") != before.Get("b") {
		t.Errorf("during the grace: %v, changed %v", docs.Sorted(), changed)
	}
	if _, changed := p.show(now.Add(lossGrace - 1)); changed {
		t.Error("the same again counts as a change")
	}
	// A second loss does not begin another grace.
	p.adopt(1, 1, nil, now.Add(time.Second))
	docs, changed = p.show(now.Add(lossGrace))
	if !changed || docs.Len() != 0 {
		t.Errorf("after the grace: %v, changed %v", docs.Sorted(), changed)
	}
}

func TestAnEmptyStoreOfTheSameHistoryIsEmpty(t *testing.T) {
	now := time.Unix(1000, 0)
	var p picture
	p.adopt(1, 50, []*discovery.Document{doc("a", "1", 40)}, now)
	p.show(now)
	if p.adopt(1, 51, nil, now) {
		t.Error("deleted documents are taken as lost")
	}
	if docs, changed := p.show(now); !changed || docs.Len() != 0 {
		t.Errorf("%d documents, changed %v", docs.Len(), changed)
	}
}

func TestTheSameListKeepsEveryPointer(t *testing.T) {
	now := time.Unix(1000, 0)
	var p picture
	p.adopt(1, 50, []*discovery.Document{doc("a", "1", 40), doc("b", "1", 41)}, now)
	before, _ := p.show(now)
	p.adopt(1, 60, []*discovery.Document{doc("a", "1", 40), doc("b", "1", 41)}, now)
	if docs, changed := p.show(now); changed || docs != before {
		t.Error("the same list is a change")
	}
	p.adopt(1, 61, []*discovery.Document{doc("a", "1", 40), doc("b", "2", 61)}, now)
	docs, changed := p.show(now)
	if !changed || docs.Get("a") != before.Get("a") || docs.Get("b") == before.Get("b") {
		t.Errorf("after a change of b: %v, changed %v", docs.Sorted(), changed)
	}
	p.change(62, map[string]*discovery.Document{"never": nil})
	if _, changed := p.show(now); changed || p.revision != 62 {
		t.Errorf("deleting what is not there: changed %v, revision %d", changed, p.revision)
	}
}
