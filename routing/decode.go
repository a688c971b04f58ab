package routing

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxDocumentBytes is the size of the largest document that is read.
const MaxDocumentBytes = 1 << 20

// maxFaults is how many faults of one document are listed.
const maxFaults = 100

// DecodeRoute reads a route document, one JSON or YAML mapping. It returns
// the spec, or every fault of the document; never both.
func DecodeRoute(value []byte) (*RouteSpec, Faults) {
	return decode(value, decodeRoute)
}

// DecodeService reads a service document; see DecodeRoute.
func DecodeService(value []byte) (*ServiceSpec, Faults) {
	return decode(value, decodeService)
}

// DecodeConsumer reads a consumer document; see DecodeRoute. No fault quotes
// the hash.
func DecodeConsumer(value []byte) (*ConsumerSpec, Faults) {
	return decode(value, decodeConsumer)
}

// DecodePlugin reads the document under /sluice/plugins/PLUGIN: the plugin's
// configuration for routes without their own, and whether the plugin is
// switched off everywhere. What the configuration holds is for the plugin to
// judge; the field disabled is not part of it. Numbers arrive as int64 where
// they are whole and as float64 where not.
func DecodePlugin(value []byte) (config map[string]any, disabled bool, faults Faults) {
	fields, faults := parseDocument(value)
	if faults != nil {
		return nil, false, faults
	}
	root := &object{fields: fields, faults: &faults}
	disabled = root.flag("disabled")
	if faults != nil {
		return nil, false, faults
	}
	delete(fields, "disabled")
	return fields, disabled, nil
}

// decode reads one document with read, which adds every fault to the object.
func decode[T any](value []byte, read func(*object) *T) (*T, Faults) {
	fields, faults := parseDocument(value)
	if faults != nil {
		return nil, faults
	}
	return decodeFields(fields, read)
}

// decodeFields is decode for a document that is already a mapping.
func decodeFields[T any](fields map[string]any, read func(*object) *T) (*T, Faults) {
	var faults Faults
	root := &object{fields: fields, faults: &faults}
	spec := read(root)
	unknownFields[T](root)
	if faults != nil {
		return nil, faults
	}
	return spec, nil
}

// parseDocument turns bytes into a mapping, or says why they are none. Values
// in it are string, bool, int64, float64, nil, []any and map[string]any.
func parseDocument(value []byte) (map[string]any, Faults) {
	if len(value) > MaxDocumentBytes {
		return nil, syntaxFault("has %d bytes; a document has at most %d", len(value), MaxDocumentBytes)
	}
	value = bytes.TrimPrefix(value, []byte("\ufeff"))
	if !utf8.Valid(value) {
		return nil, syntaxFault("is not UTF-8 text; a document is one JSON or YAML mapping")
	}
	if bytes.IndexByte(value, 0) >= 0 {
		return nil, syntaxFault("holds a NUL byte; a document is one JSON or YAML mapping")
	}
	if len(bytes.TrimSpace(value)) == 0 {
		return nil, syntaxFault("is empty; a document is one JSON or YAML mapping")
	}
	p := treeParser{}
	tree := p.parse(value)
	if p.faults != nil {
		return nil, p.faults
	}
	fields, ok := tree.(map[string]any)
	if !ok {
		return nil, syntaxFault("is %s; a document is one JSON or YAML mapping", kindOf(tree))
	}
	return fields, nil
}

func syntaxFault(format string, args ...any) Faults {
	return Faults{{Code: ProblemSyntax, Message: "the document " + fmt.Sprintf(format, args...)}}
}

// kindOf names the kind of a value in the words of the person who wrote it,
// without the value.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "text"
	case bool:
		return "true or false"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	}
	return "a mapping"
}

// quoted gives s for a message: bounded in length, control bytes escaped.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
