package routing

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Names of tags after their prefix, and the field of a route each one gives.
const (
	tagDocument    = "route"
	tagPath        = "path"
	tagHost        = "host"
	tagMethods     = "methods"
	tagStripPrefix = "strip_prefix"
	tagRewrite     = "rewrite"
	tagPriority    = "priority"
)

func tagNames() []string {
	return []string{tagPath, tagHost, tagMethods, tagStripPrefix, tagRewrite, tagPriority, tagDocument}
}

// tagReader gathers the fields of a route from tags.
type tagReader struct {
	prefix string
	fields map[string]any
	faults Faults
}

func (t *tagReader) fault(name, message string) {
	t.faults = append(t.faults, Fault{Field: t.prefix + name, Code: ProblemTag, Message: message})
}

// RouteFromTags reads the route that a Consul service announces about itself
// by tags such as "sluice.path=/orders/*", where "sluice." is the prefix. It
// returns nil and no faults where no tag begins with prefix. Tags may come in
// any order and more than once; hosts and methods add up, anything else must
// agree. The route leads to the service itself and nowhere else.
func RouteFromTags(service, prefix string, tags []string) (*RouteSpec, Faults) {
	t := &tagReader{prefix: prefix, fields: map[string]any{}}
	var document string
	found := false
	for _, tag := range tags {
		rest, ok := strings.CutPrefix(tag, prefix)
		if !ok {
			continue
		}
		found = true
		name, value, hasValue := strings.Cut(rest, "=")
		if !slices.Contains(tagNames(), name) {
			t.unknown(name)
			continue
		}
		if value = strings.TrimSpace(value); !hasValue || value == "" {
			t.fault(name, "has no value; write "+prefix+name+"=VALUE")
			continue
		}
		if !utf8.ValidString(value) || hasControl(value) {
			t.fault(name, "is not UTF-8 text on one line")
			continue
		}
		if name == tagDocument {
			if document != "" && document != value {
				t.fault(name, "is given twice with different values")
			}
			document = value
			continue
		}
		t.take(name, value)
	}
	if !found {
		return nil, nil
	}
	if document != "" {
		if len(t.fields) > 0 {
			t.fault(tagDocument, "stands beside other tags of the gateway; it holds the whole route")
		}
		t.document(document)
	} else if _, ok := t.fields["path"]; !ok && t.faults == nil {
		t.fault(tagPath, "is missing; a route needs "+prefix+"path=/orders/* or "+prefix+"route=JSON")
	}
	return t.route(service, document != "")
}

func (t *tagReader) unknown(name string) {
	accepted := make([]string, 0, 8)
	for _, n := range tagNames() {
		accepted = append(accepted, t.prefix+n)
	}
	field := name
	if acceptText(name) != "" || len(name) > 80 {
		field = quoted(name)
	}
	t.fault(field, "is not a tag of the gateway"+suggestion(t.prefix+name, accepted)+"; accepted are "+strings.Join(accepted, ", "))
}

// take adds the value of one tag.
func (t *tagReader) take(name, value string) {
	switch name {
	case tagHost:
		t.extend("hosts", value)
	case tagMethods:
		t.extend("methods", value)
	case tagPriority:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			t.fault(name, quoted(value)+" is not a whole number")
			return
		}
		t.set(name, n)
	default:
		t.set(name, value)
	}
}

func (t *tagReader) set(name string, value any) {
	if before, twice := t.fields[name]; twice && before != value {
		t.fault(name, "is given twice with different values")
	}
	t.fields[name] = value
}

// extend adds the words of a comma-separated list, each once.
func (t *tagReader) extend(field, value string) {
	list, _ := t.fields[field].([]any)
	for word := range strings.SplitSeq(value, ",") {
		if word := any(strings.TrimSpace(word)); !slices.Contains(list, word) {
			list = append(list, word)
		}
	}
	t.fields[field] = list
}

// document reads the value of the tag that holds a whole route.
func (t *tagReader) document(value string) {
	fields, faults := parseDocument([]byte(value))
	for _, f := range faults {
		t.fault(tagDocument+afterTag(f.Field), f.Message)
	}
	for _, name := range []string{"redirect", "respond"} {
		if _, ok := fields[name]; ok {
			t.fault(tagDocument+"."+name, "is not for a route from tags, which leads to its own service")
			delete(fields, name)
		}
	}
	t.fields = fields
}

// route decodes the gathered fields by the rules of every route.
func (t *tagReader) route(service string, document bool) (*RouteSpec, Faults) {
	if t.faults != nil {
		return nil, t.faults
	}
	if given, ok := t.fields["service"]; ok && given != service {
		t.fault(tagDocument+".service", "is not the service that carries the tag; leave it out")
		return nil, t.faults
	}
	t.fields["service"] = service
	spec, faults := decodeFields(t.fields, decodeRoute)
	for _, f := range faults {
		switch {
		case f.Field == "service":
			t.fault(tagPath, "the service's name cannot be one of a route: "+f.Message)
		case document:
			t.fault(tagDocument+afterTag(f.Field), f.Message)
		default:
			field, _, _ := strings.Cut(f.Field, "[")
			if field == "hosts" {
				field = tagHost
			}
			t.fault(field, f.Message)
		}
	}
	return spec, t.faults
}

// afterTag joins the path of a field to the tag that held the document.
func afterTag(field string) string {
	if field == "" || field[0] == '[' {
		return field
	}
	return "." + field
}
