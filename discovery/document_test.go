package discovery

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func document(key string, revision int64) *Document { return &Document{Key: key, Revision: revision} }

// keys writes a set as a test compares it.
func keys(s *Documents) []string {
	out := []string{}
	for d := range s.All {
		out = append(out, fmt.Sprintf("%s@%d", d.Key, d.Revision))
	}
	return out
}

func TestASetOfDocumentsKeepsTheNewestOfEachKey(t *testing.T) {
	first := NewDocuments(document("b", 1), document("a", 1), document("b", 2))
	second := first.With([]*Document{document("c", 3), document("a", 3)}, []string{"b", "nothing"})
	third := second.With([]*Document{document("a", 4)}, []string{"a"})
	for name, c := range map[string]struct {
		set  *Documents
		want []string
	}{
		"the later of equal keys stays":             {first, []string{"a@1", "b@2"}},
		"put and remove at once":                    {second, []string{"a@3", "c@3"}},
		"what is both put and removed stands":       {third, []string{"a@4", "c@3"}},
		"nil is the empty set":                      {(*Documents)(nil).With(nil, []string{"a"}), []string{}},
		"a set made of nothing":                     {NewDocuments(), []string{}},
		"a set that lost its last document":         {NewDocuments(document("a", 1)).With(nil, []string{"a"}), []string{}},
		"documents around those that are there":     {first.With([]*Document{document("c", 9), document("0", 9), document("aa", 9)}, nil), []string{"0@9", "a@1", "aa@9", "b@2", "c@9"}},
		"a set from which others were made is kept": {first, []string{"a@1", "b@2"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := keys(c.set); !slices.Equal(got, c.want) || c.set.Len() != len(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	if first.Get("b").Revision != 2 || first.Get("c") != nil || (*Documents)(nil).Get("a") != nil {
		t.Error("Get does not agree with All")
	}
}

func TestSinceTellsEachChangeBetweenTwoSets(t *testing.T) {
	a, b := document("a", 1), document("b", 1)
	one := NewDocuments(a, b)
	for name, c := range map[string]struct {
		old, now *Documents
		want     []string
	}{
		"the same set":          {one, one, nil},
		"equal sets":            {one, NewDocuments(b, a), nil},
		"from nothing":          {nil, one, []string{"<nil> a@1", "<nil> b@1"}},
		"to nothing":            {one, nil, []string{"a@1 <nil>", "b@1 <nil>"}},
		"another version":       {one, one.With([]*Document{document("a", 2)}, nil), []string{"a@1 a@2"}},
		"one came, one went":    {one, one.With([]*Document{document("aa", 2)}, []string{"b"}), []string{"<nil> aa@2", "b@1 <nil>"}},
		"before all, after all": {one, one.With([]*Document{document("0", 2), document("c", 2)}, nil), []string{"<nil> 0@2", "<nil> c@2"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := changes(c.old, c.now); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	for range (*Documents)(nil).Since(one) {
		break // must not go on after the loop ended
	}
}

func changes(old, now *Documents) (out []string) {
	text := func(d *Document) string {
		if d == nil {
			return "<nil>"
		}
		return fmt.Sprintf("%s@%d", d.Key, d.Revision)
	}
	for before, after := range now.Since(old) {
		out = append(out, text(before)+" "+text(after))
	}
	return out
}

// A set must hold what a plain map would, and Since must lead from one to the
// next.
func TestDocumentsAgreeWithAPlainMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var set *Documents
	plain := map[string]*Document{}
	followed := map[string]*Document{}
	for revision := range int64(500) {
		var put []*Document
		var remove []string
		for range r.IntN(4) {
			put = append(put, document(fmt.Sprint(r.IntN(40)), revision))
		}
		for range r.IntN(4) {
			remove = append(remove, fmt.Sprint(r.IntN(40)))
		}
		old := set
		set = set.With(put, remove)
		for _, k := range remove {
			delete(plain, k)
		}
		for _, d := range put {
			plain[d.Key] = d
		}
		for before, after := range set.Since(old) {
			if after == nil {
				delete(followed, before.Key)
			} else {
				followed[after.Key] = after
			}
		}
		for k := range 40 {
			key := fmt.Sprint(k)
			if set.Get(key) != plain[key] || followed[key] != plain[key] {
				t.Fatalf("revision %d, key %s: %v and %v, want %v", revision, key, set.Get(key), followed[key], plain[key])
			}
		}
		if set.Len() != len(plain) || len(followed) != len(plain) {
			t.Fatalf("revision %d: %d and %d documents, want %d", revision, set.Len(), len(followed), len(plain))
		}
	}
}
