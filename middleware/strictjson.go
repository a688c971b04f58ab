package middleware

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// maxNesting bounds how deep objects and lists of a token may stand in each
// other.
const maxNesting = 16

var errJSON = errors.New("is not an object in strict JSON")

// strictObject decodes a JSON object, with numbers as json.Number. Unlike
// encoding/json it refuses a name that stands twice in an object, since the
// instance may take the other one (RFC 8725 section 2.6), bytes that are no
// UTF-8, and deep nesting.
func strictObject(raw []byte) (map[string]any, error) {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, errJSON
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := strictValue(d, 0)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errJSON
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errJSON
	}
	return object, nil
}

func strictValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil || depth > maxNesting {
		return nil, errJSON
	}
	switch t {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, errJSON
			}
			key := name.(string) // the decoder lets nothing else stand here
			if _, twice := object[key]; twice {
				return nil, errors.New("names a field twice")
			}
			if object[key], err = strictValue(d, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := strictValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}
