package routing

import (
	"bytes"
	"encoding/json"
)

// jsonReader reads JSON that json.Valid has accepted, so that it need not
// doubt what it sees. It stands in for encoding/json because that lets the
// last of two equal keys win without a word, and because ten thousand
// documents are read at every start (see BenchmarkDecodeRoute).
type jsonReader struct {
	*treeParser
	text []byte
	at   int
}

// next skips white space and returns the byte it stops at.
func (r *jsonReader) next() byte {
	for {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return c
		}
	}
}

func (r *jsonReader) value(path string, depth int) any {
	switch c := r.next(); c {
	case '{':
		return r.object(path, depth)
	case '[':
		return r.array(path, depth)
	case '"':
		return r.string()
	case 't':
		r.at += len("true")
		return true
	case 'f':
		r.at += len("false")
		return false
	case 'n':
		r.at += len("null")
		return nil
	}
	start := r.at
	for r.at < len(r.text) && bytes.IndexByte([]byte("+-.0123456789eE"), r.text[r.at]) >= 0 {
		r.at++
	}
	return r.number(path, string(r.text[start:r.at]))
}

func (r *jsonReader) object(path string, depth int) any {
	if depth >= maxDepth {
		return r.tooDeep()
	}
	m := make(map[string]any, 4)
	r.at++ // {
	for r.next() != '}' {
		key := r.string()
		field := joinField(path, key)
		if _, twice := m[key]; twice {
			r.fault(field, "is given twice")
		}
		r.next()
		r.at++ // :
		m[key] = r.value(field, depth+1)
		if r.stopped {
			return nil
		}
		if r.next() == ',' {
			r.at++
			r.next()
		}
	}
	r.at++ // }
	return m
}

func (r *jsonReader) array(path string, depth int) any {
	if depth >= maxDepth {
		return r.tooDeep()
	}
	s := []any{}
	r.at++ // [
	for r.next() != ']' {
		s = append(s, r.value(joinIndex(path, len(s)), depth+1))
		if r.stopped {
			return nil
		}
		if r.next() == ',' {
			r.at++
		}
	}
	r.at++ // ]
	return s
}

func (r *jsonReader) string() string {
	start, escaped := r.at, false
	for r.at++; r.text[r.at] != '"'; r.at++ {
		if r.text[r.at] == '\\' {
			escaped = true
			r.at++
		}
	}
	r.at++
	if !escaped {
		return string(r.text[start+1 : r.at-1])
	}
	var s string
	_ = json.Unmarshal(r.text[start:r.at], &s) // valid, as said above
	return s
}
