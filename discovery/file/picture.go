package file

import (
	"bytes"
	"maps"
	"slices"

	"github.com/sluice-gateway/sluice/discovery"
)

// picture is what the source knows of the directory. One goroutine owns it.
type picture struct {
	docs *discovery.Documents
	// revision counts the scans that changed a document.
	revision int64
	// created counts the documents seen first.
	created int64
}

// take brings a scan into the picture and reports whether a document changed.
// A document whose file is there and has a fault stays as it was.
func (p *picture) take(s scan) (changed bool) {
	var put []*discovery.Document
	remove := p.missing(s)
	for _, key := range sortedKeys(s.contents) {
		c, old := s.contents[key], p.docs.Get(key)
		if old != nil && bytes.Equal(old.Value, c.value) {
			continue
		}
		d := &discovery.Document{
			Key: key, Kind: c.kind, Name: c.name, Source: discovery.SourceFile,
			Value: c.value, Revision: p.revision + 1,
		}
		if old == nil {
			p.created++
			d.Created = p.created
		} else {
			d.Created = old.Created
			if d.Kind == discovery.KindActive {
				d.Previous = old.Value
			}
		}
		put = append(put, d)
	}
	if p.docs != nil && len(put)+len(remove) == 0 {
		return false
	}
	p.revision++
	p.docs = p.docs.With(put, remove)
	return true
}

// missing lists the documents whose files are gone in s.
func (p *picture) missing(s scan) []string {
	var keys []string
	for d := range p.docs.All {
		_, there := s.contents[d.Key]
		if !there && s.faults[d.Key] == nil && s.faults[string(d.Kind)] == nil {
			keys = append(keys, d.Key)
		}
	}
	return keys
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
