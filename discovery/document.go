package discovery

import (
	"maps"
	"slices"
)

// Kind is the sort of a document: the path segment under the prefix.
type Kind string

// The kinds of documents that operators write.
const (
	KindRoute    Kind = "routes"
	KindService  Kind = "services"
	KindActive   Kind = "active"
	KindConsumer Kind = "consumers"
	KindPlugin   Kind = "plugins"
)

// Kinds lists every kind that a source reads, in the order a reader expects.
func Kinds() []Kind {
	return []Kind{KindRoute, KindService, KindActive, KindConsumer, KindPlugin}
}

// Names of the sources, as they stand in status, metrics and logs.
const (
	SourceEtcd   = "etcd"
	SourceConsul = "consul"
	SourceFile   = "file"
)

// Document is one value an operator wrote: bytes under a key, not yet read.
// It is immutable once reported.
type Document struct {
	// Key is the full name a person can look up: "/sluice/routes/orders" in
	// etcd, "routes/orders.yaml" in a directory.
	Key string `json:"key"`
	// Kind and Name are the last two segments of the key.
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Source is the source that reported it.
	Source string `json:"source"`
	// Value is the document as written.
	Value []byte `json:"value"`
	// Revision is the store's revision of the last write (etcd mod_revision);
	// for files a number that grows with every reload that changed the file.
	Revision int64 `json:"revision"`
	// Created is the revision of the key's creation (etcd create_revision);
	// the smaller is the older key.
	Created int64 `json:"created"`
	// Previous is the value before this one, where the source knows it; only
	// asked for KindActive, so that a gateway that starts during a held flip
	// finds the choice that still serves.
	Previous []byte `json:"previous,omitempty"`
}

// Documents is an immutable set of documents of one source, by key.
type Documents struct {
	byKey map[string]*Document
}

// NewDocuments makes a set of docs. A later document with the same key
// replaces an earlier one.
func NewDocuments(docs ...*Document) *Documents {
	m := make(map[string]*Document, len(docs))
	for _, d := range docs {
		m[d.Key] = d
	}
	return &Documents{byKey: m}
}

// With returns a set in which each of put stands and none of the keys in
// remove does. The receiver does not change; nil is the empty set.
func (s *Documents) With(put []*Document, remove []string) *Documents {
	var m map[string]*Document
	if s == nil {
		m = make(map[string]*Document, len(put))
	} else {
		m = maps.Clone(s.byKey)
	}
	for _, k := range remove {
		delete(m, k)
	}
	for _, d := range put {
		m[d.Key] = d
	}
	return &Documents{byKey: m}
}

// Get returns the document under key, or nil.
func (s *Documents) Get(key string) *Document {
	if s == nil {
		return nil
	}
	return s.byKey[key]
}

// Len is the number of documents.
func (s *Documents) Len() int {
	if s == nil {
		return 0
	}
	return len(s.byKey)
}

// All calls yield for each document in no particular order.
func (s *Documents) All(yield func(*Document) bool) {
	if s == nil {
		return
	}
	for _, d := range s.byKey {
		if !yield(d) {
			return
		}
	}
}

// Sorted returns the documents by key.
func (s *Documents) Sorted() []*Document {
	if s == nil {
		return nil
	}
	out := make([]*Document, 0, len(s.byKey))
	for _, k := range slices.Sorted(maps.Keys(s.byKey)) {
		out = append(out, s.byKey[k])
	}
	return out
}
