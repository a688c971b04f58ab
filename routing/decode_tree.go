package routing

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The bounds of a document's shape: deeper nesting than any real document
// has, and how many values aliases may add (a few aliases of aliases can
// stand for billions).
const (
	maxDepth   = 64
	maxAliased = 10_000
)

// treeParser reads one document into plain values and keeps every fault of
// its form: duplicate keys, numbers out of range, aliases without bound.
type treeParser struct {
	faults  Faults
	stopped bool // the shape is out of bounds: what follows is not read
	inAlias int  // aliases around the value being read
	aliased int  // values that aliases added so far
}

// stop gives up on a document whose shape is out of bounds.
func (p *treeParser) stop(message string) any {
	if !p.stopped {
		p.faults, p.stopped = append(p.faults, syntaxFault("%s", message)...), true
	}
	return nil
}

func (p *treeParser) tooDeep() any {
	return p.stop("is nested deeper than " + strconv.Itoa(maxDepth) + " levels")
}

func (p *treeParser) fault(path, message string) {
	if enough(p.faults) {
		return
	}
	p.faults = append(p.faults, Fault{Field: path, Code: ProblemSyntax, Message: message})
}

// parse reads JSON, and YAML where it is not JSON. A YAML flow mapping looks
// like JSON at first sight; where neither reads it, the words are JSON's,
// because that is what such a document was meant to be.
func (p *treeParser) parse(value []byte) any {
	trimmed := bytes.TrimLeft(value, " \t\r\n")
	looksJSON := trimmed[0] == '{' || trimmed[0] == '['
	if looksJSON && json.Valid(value) {
		return (&jsonReader{treeParser: p, text: value}).value("", 0)
	}
	tree, err := p.parseYAML(value)
	switch {
	case err == nil:
		return tree
	case looksJSON:
		p.faults = syntaxFault("is not JSON: %s", jsonError(value))
	default:
		p.faults = syntaxFault("is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return nil
}

// jsonError says where and why value is not JSON.
func jsonError(value []byte) string {
	err := json.Unmarshal(value, new(json.RawMessage))
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return "it cannot be read"
	}
	before := value[:min(int(syntax.Offset), len(value))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n') - 1
	return "line " + strconv.Itoa(line) + ", column " + strconv.Itoa(column) + ": " + syntax.Error()
}

// number reads a number of either format. Whole numbers are int64, however
// they are written, so that a document means the same after a round trip.
func (p *treeParser) number(path, text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		p.fault(path, "is a number out of range")
		return nil
	}
	return wholeNumber(f)
}

func wholeNumber(f float64) any {
	if f == math.Trunc(f) && math.Abs(f) < 1<<63 {
		return int64(f)
	}
	return f
}

// parseYAML reads one YAML document; an error is one of its syntax.
func (p *treeParser) parseYAML(value []byte) (tree any, err error) {
	// The scanner of the library has panicked on hostile input before; one
	// document must not take the gateway down.
	defer func() {
		if recover() != nil {
			tree, err = nil, errors.New("it cannot be read")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(value))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		p.faults = syntaxFault("is empty; a document is one JSON or YAML mapping")
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, err
		}
		p.faults = syntaxFault("is followed by another one after ---; a key holds one document")
		return nil, nil
	}
	return p.yamlValue(doc.Content[0], "", 0), nil
}

func (p *treeParser) yamlValue(n *yaml.Node, path string, depth int) any {
	if depth >= maxDepth {
		return p.tooDeep()
	}
	switch n.Kind {
	case yaml.AliasNode:
		p.inAlias++
		v := p.yamlValue(n.Alias, path, depth+1)
		p.inAlias--
		return v
	case yaml.MappingNode:
		return p.yamlMapping(n, path, depth)
	case yaml.SequenceNode:
		s := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			if p.exhausted() {
				break
			}
			s = append(s, p.yamlValue(c, joinIndex(path, i), depth+1))
		}
		return s
	}
	return p.yamlScalar(n, path)
}

// exhausted counts one value and says whether to stop before it.
func (p *treeParser) exhausted() bool {
	if p.inAlias > 0 {
		p.aliased++
	}
	if p.aliased > maxAliased {
		p.stop("has aliases that stand for more than " + strconv.Itoa(maxAliased) + " values")
	}
	return p.stopped
}

func (p *treeParser) yamlMapping(n *yaml.Node, path string, depth int) map[string]any {
	m := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content) && !p.exhausted(); i += 2 {
		key := n.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.ShortTag() == "!!merge" {
			p.fault(path, "merge keys (<<) are not accepted; write the fields out")
			continue
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			p.fault(path, "line "+strconv.Itoa(key.Line)+": a key is not text; put it in quotes")
			continue
		}
		field := joinField(path, key.Value)
		if _, twice := m[key.Value]; twice {
			p.fault(field, "is given twice")
		}
		m[key.Value] = p.yamlValue(n.Content[i+1], field, depth+1)
	}
	return m
}

func (p *treeParser) yamlScalar(n *yaml.Node, path string) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!str", "!!timestamp": // a date is text here
		return n.Value
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	case "!!int", "!!float":
		var i int64
		if n.ShortTag() == "!!int" && n.Decode(&i) == nil {
			return i
		}
		var f float64
		if n.Decode(&f) == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return wholeNumber(f)
		}
		p.fault(path, "is a number out of range")
		return nil
	}
	p.fault(path, "has a YAML tag that is not accepted; write plain text, numbers, true or false")
	return nil
}
