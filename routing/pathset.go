package routing

import "sync"

// PathSet finds, of path patterns as routes have them, the most specific one
// that a path matches: static over ":param" over "*", segment by segment. It
// is for rules that stand below a route. Once asked it must not change.
type PathSet struct {
	root pathNode
	n    int
	// walks are pathWalks that can be used again.
	walks sync.Pool
}

// pathWalk is what one Find works with.
type pathWalk struct {
	req    Request
	match  Match
	search search
}

// Add puts a pattern into the set and returns its number, counted from 0.
// Patterns that match the same paths have one number. Errors say what is wrong
// with the pattern.
func (s *PathSet) Add(pattern string) (int, error) {
	path, params, err := parseRoutePath(pattern)
	if err != nil {
		return 0, err
	}
	r := &Route{matcher: matcher{path: path, params: params}, slot: s.n}
	list := s.root.place(r)
	if len(*list) > 0 {
		return (*list)[0].slot, nil
	}
	*list = append(*list, r)
	s.n++
	return r.slot, nil
}

// Find returns the number of the most specific pattern that path matches.
func (s *PathSet) Find(path Path) (number int, ok bool) {
	if path.Match == "" {
		return 0, false
	}
	w, _ := s.walks.Get().(*pathWalk)
	if w == nil {
		w = new(pathWalk)
	}
	w.req.Path = path
	w.search = search{req: &w.req, match: &w.match}
	if ok = w.search.walk(&s.root, 1, 0); ok {
		number = w.match.Route.slot
	}
	*w = pathWalk{}
	s.walks.Put(w)
	return number, ok
}
