package discovery

import (
	"iter"
	"maps"
	"slices"
	"strings"
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
	// Kind and Name are the last two segments of the key. A Kind that is none
	// of Kinds is a mistake in the key, which its writer is to be told of; such
	// a document has no Value.
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

// Documents is an immutable set of documents of one source, by key. It is kept
// in order, so that one change among ten thousand costs a copy of pointers,
// and what changed between two sets is found without looking into either.
type Documents struct {
	docs []*Document // by key
}

// NewDocuments makes a set of docs. A later document with the same key
// replaces an earlier one.
func NewDocuments(docs ...*Document) *Documents {
	return (*Documents)(nil).With(docs, nil)
}

// With returns a set in which each of put stands and none of the keys in
// remove does. The receiver does not change; nil is the empty set.
func (s *Documents) With(put []*Document, remove []string) *Documents {
	changes := make(map[string]*Document, len(put)+len(remove))
	for _, k := range remove {
		changes[k] = nil
	}
	for _, d := range put {
		changes[d.Key] = d
	}
	rest := s.Sorted()
	docs := make([]*Document, 0, len(rest)+len(put))
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		i, found := find(rest, key)
		docs = append(docs, rest[:i]...)
		if d := changes[key]; d != nil {
			docs = append(docs, d)
		}
		if found {
			i++
		}
		rest = rest[i:]
	}
	return &Documents{docs: append(docs, rest...)}
}

// Get returns the document under key, or nil.
func (s *Documents) Get(key string) *Document {
	docs := s.Sorted()
	if i, found := find(docs, key); found {
		return docs[i]
	}
	return nil
}

// Named returns a document of kind by its name, or nil. It looks at all of
// them.
func (s *Documents) Named(kind Kind, name string) *Document {
	for d := range s.All {
		if d.Kind == kind && d.Name == name {
			return d
		}
	}
	return nil
}

func find(docs []*Document, key string) (int, bool) {
	return slices.BinarySearchFunc(docs, key, func(d *Document, key string) int { return strings.Compare(d.Key, key) })
}

// Len is the number of documents.
func (s *Documents) Len() int { return len(s.Sorted()) }

// All calls yield for each document, by key.
func (s *Documents) All(yield func(*Document) bool) {
	for _, d := range s.Sorted() {
		if !yield(d) {
			return
		}
	}
}

// Sorted returns the documents by key. The slice must not be changed.
func (s *Documents) Sorted() []*Document {
	if s == nil {
		return nil
	}
	return s.docs
}

// Since calls yield for each key under which old has another document than s,
// with both; the one of a key that came or went is nil.
func (s *Documents) Since(old *Documents) iter.Seq2[*Document, *Document] {
	return func(yield func(before, after *Document) bool) {
		a, b := old.Sorted(), s.Sorted()
		for len(a) > 0 || len(b) > 0 {
			if len(a) > 0 && len(b) > 0 && a[0] == b[0] {
				a, b = a[1:], b[1:]
				continue
			}
			var before, after *Document
			order := 0
			switch {
			case len(a) == 0:
				order = 1
			case len(b) == 0:
				order = -1
			default:
				order = strings.Compare(a[0].Key, b[0].Key)
			}
			if order <= 0 {
				before, a = a[0], a[1:]
			}
			if order >= 0 {
				after, b = b[0], b[1:]
			}
			if !yield(before, after) {
				return
			}
		}
	}
}
