package routing

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// A check says what is wrong with a value and what is accepted, or "".
type check func(string) string

// object reads the fields of one mapping. A field that is missing gives the
// zero value; one that is wrong gives the zero value and a fault. Every field
// is read once: what was not read in the end is unknown.
type object struct {
	path   string
	fields map[string]any
	taken  int
	faults *Faults
}

func (o *object) fault(name, format string, args ...any) {
	faultAt(o.faults, joinField(o.path, name), format, args...)
}

func faultAt(faults *Faults, field, format string, args ...any) {
	if enough(*faults) {
		return
	}
	*faults = append(*faults, Fault{Field: field, Code: ProblemField, Message: fmt.Sprintf(format, args...)})
}

// enough says that no more faults are listed: what goes to log and status
// must not grow with a document that is nothing but faults.
func enough(faults Faults) bool { return len(faults) >= maxFaults }

// want says that a field has the wrong type.
func (o *object) want(name string, got any, what string) {
	o.fault(name, "is %s; want %s", kindOf(got), what)
}

// has says whether the field is there, with whatever value.
func (o *object) has(name string) bool {
	_, ok := o.fields[name]
	return ok
}

// take returns the field's value. A null is a fault: whether it was meant as
// "none" or as "not decided yet" would be a guess.
func (o *object) take(name string) (any, bool) {
	v, ok := o.fields[name]
	if !ok {
		return nil, false
	}
	o.taken++
	if v == nil {
		o.fault(name, "is null; give a value, or leave the field out")
		return nil, false
	}
	return v, true
}

// anyText reads text that may be empty.
func (o *object) anyText(name string) string {
	v, ok := o.take(name)
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		o.want(name, v, "text (in quotes)")
	}
	return s
}

// text reads text that is not empty and that check accepts.
func (o *object) text(name string, accept check) string {
	s, ok := o.fields[name].(string)
	if !ok || s != "" {
		s = o.anyText(name)
	} else {
		o.taken++
		o.fault(name, "is empty; give a value, or leave the field out")
	}
	if s == "" || accept == nil {
		return s
	}
	if wrong := accept(s); wrong != "" {
		o.fault(name, "%s", wrong)
	}
	return s
}

// choice reads one of some words.
func (o *object) choice(name string, words ...string) string {
	return o.text(name, oneOf(words...))
}

func oneOf(words ...string) check {
	return func(s string) string {
		if slices.Contains(words, s) {
			return ""
		}
		return quoted(s) + " is not one of " + strings.Join(words, ", ") + suggestion(s, words)
	}
}

// flag reads true or false.
func (o *object) flag(name string) bool {
	v, ok := o.take(name)
	if !ok {
		return false
	}
	b, ok := v.(bool)
	if !ok {
		o.want(name, v, "true or false (no quotes)")
	}
	return b
}

// optionalInteger reads a whole number from low to high; nil where it is
// missing.
func (o *object) optionalInteger(name string, low, high int) *int {
	v, ok := o.take(name)
	if !ok {
		return nil
	}
	n, ok := v.(int64)
	switch {
	case !ok:
		o.want(name, v, fmt.Sprintf("a whole number from %d to %d", low, high))
		return nil
	case n < int64(low) || n > int64(high):
		o.fault(name, "is %d; accepted is %d to %d", n, low, high)
		return nil
	}
	i := int(n)
	return &i
}

func (o *object) integer(name string, low, high int) int {
	if n := o.optionalInteger(name, low, high); n != nil {
		return *n
	}
	return 0
}

// optionalDuration reads a duration of at least low; nil where it is missing.
func (o *object) optionalDuration(name string, low Duration) *Duration {
	v, ok := o.take(name)
	if !ok {
		return nil
	}
	s, ok := v.(string)
	if !ok {
		if n, isNumber := v.(int64); isNumber && n == 0 && low == 0 {
			return new(Duration)
		}
		o.want(name, v, `a duration with its unit in quotes, such as "250ms", "30s" or "5m"`)
		return nil
	}
	d, err := ParseDuration(s)
	switch {
	case err != nil && len(s) > 40:
		o.fault(name, "is not a duration such as 250ms, 30s or 5m")
		return nil
	case err != nil:
		o.fault(name, "%s", err)
		return nil
	case d < low:
		o.fault(name, "is %s; accepted is %s or more", time.Duration(d), time.Duration(low))
		return nil
	}
	return &d
}

func (o *object) duration(name string, low Duration) Duration {
	if d := o.optionalDuration(name, low); d != nil {
		return *d
	}
	return 0
}

// elements reads a list of at most most elements.
func (o *object) elements(name string, most int, example string) []any {
	v, ok := o.take(name)
	if !ok {
		return nil
	}
	s, ok := v.([]any)
	switch {
	case !ok:
		o.want(name, v, "a list such as "+example)
		return nil
	case len(s) > most:
		o.fault(name, "has %d elements; at most %d are accepted", len(s), most)
		return nil
	}
	return s
}

// texts reads a list of different texts, each accepted by accept. An empty
// list is a missing one.
func (o *object) texts(name string, most int, example string, accept check) []string {
	list := o.elements(name, most, example)
	if len(list) == 0 {
		return nil
	}
	out := make([]string, 0, len(list))
	for i, v := range list {
		s, ok := v.(string)
		field := joinIndex(joinField(o.path, name), i)
		switch {
		case !ok:
			faultAt(o.faults, field, "is %s; want text (in quotes)", kindOf(v))
			continue
		case s == "":
			faultAt(o.faults, field, "is empty")
			continue
		}
		if wrong := accept(s); wrong != "" {
			faultAt(o.faults, field, "%s", wrong)
		}
		out = append(out, s)
	}
	if i := firstDuplicate(out); i >= 0 && len(out) == len(list) {
		faultAt(o.faults, joinIndex(joinField(o.path, name), i), "is listed twice")
	}
	return out
}

// firstDuplicate returns the place of the first element that stands earlier
// too, or -1.
func firstDuplicate(s []string) int {
	if len(s) < 16 {
		for i := range s {
			if slices.Contains(s[:i], s[i]) {
				return i
			}
		}
		return -1
	}
	seen := make(map[string]bool, len(s))
	for i, v := range s {
		if seen[v] {
			return i
		}
		seen[v] = true
	}
	return -1
}

// mapping reads a mapping of at most most entries.
func (o *object) mapping(name string, most int, example string) map[string]any {
	v, ok := o.take(name)
	if !ok {
		return nil
	}
	m, ok := v.(map[string]any)
	switch {
	case !ok:
		o.want(name, v, "a mapping such as "+example)
		return nil
	case len(m) > most:
		o.fault(name, "has %d entries; at most %d are accepted", len(m), most)
		return nil
	}
	return m
}

// textMap reads a mapping of text to text. Neither kind of fault quotes a
// value: a header's may be a credential.
func (o *object) textMap(name string, most int, example string, acceptKey, accept check) map[string]string {
	m := o.mapping(name, most, example)
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for _, key := range sortedKeys(m) {
		field := joinField(joinField(o.path, name), key)
		if wrong := acceptKey(key); wrong != "" {
			faultAt(o.faults, field, "%s", wrong)
		}
		s, ok := m[key].(string)
		if !ok {
			faultAt(o.faults, field, "is %s; want text (in quotes)", kindOf(m[key]))
			continue
		}
		if wrong := accept(s); wrong != "" {
			faultAt(o.faults, field, "%s", wrong)
		}
		out[key] = s
	}
	return out
}

// child reads the mapping under name with read; nil where it is missing.
func child[T any](o *object, name, example string, read func(*object) *T) *T {
	v, ok := o.take(name)
	if !ok {
		return nil
	}
	return childValue(o, joinField(o.path, name), v, example, read)
}

// childValue reads v, which stands at field, as a mapping.
func childValue[T any](o *object, field string, v any, example string, read func(*object) *T) *T {
	m, ok := v.(map[string]any)
	if !ok {
		faultAt(o.faults, field, "is %s; want a mapping such as %s", kindOf(v), example)
		return nil
	}
	c := &object{path: field, fields: m, faults: o.faults}
	out := read(c)
	unknownFields[T](c)
	return out
}

// unknownFields adds a fault for every field of o that T does not have.
func unknownFields[T any](o *object) {
	if o.taken == len(o.fields) {
		return
	}
	accepted := fieldNames(reflect.TypeFor[T]())
	for _, name := range sortedKeys(o.fields) {
		if enough(*o.faults) {
			return
		}
		if !slices.Contains(accepted, name) {
			o.fault(name, "is not a field here%s; accepted are %s", suggestion(name, accepted), strings.Join(accepted, ", "))
		}
	}
}

// fieldNames lists the names under which a document gives the fields of t.
func fieldNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// suggestion is "; did you mean X?" where a word is close to s.
func suggestion(s string, words []string) string {
	if best := discovery.Nearest(s, words, len(s)/3+1); best != "" {
		return "; did you mean " + best + "?"
	}
	return ""
}

// joinField gives the path of a field: "retry.on", or headers["x.y"] where
// the name would not read as one word.
func joinField(path, name string) string {
	for i := range len(name) {
		c := name[i]
		if !isAlphanumeric(c) && c != '_' && c != '-' {
			return path + "[" + quoted(name) + "]"
		}
	}
	switch {
	case name == "" || len(name) > 80:
		return path + "[" + quoted(name) + "]"
	case path == "":
		return name
	}
	return path + "." + name
}

func joinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
