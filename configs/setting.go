package configs

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// setting is one key and where its value stands in a Config.
type setting struct {
	key   string // "etcd.endpoints"
	typ   reflect.Type
	index []int
}

// settings lists every key in the order of Config.
func settings() []setting { return appendSettings(nil, reflect.TypeFor[Config](), "", nil) }

func appendSettings(out []setting, t reflect.Type, path string, index []int) []setting {
	for f := range t.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("mapstructure"), ",")
		at := append(append([]int(nil), index...), f.Index...)
		switch {
		case option == "squash":
			out = appendSettings(out, f.Type, path, at)
		case f.Type.Kind() == reflect.Struct:
			out = appendSettings(out, f.Type, path+name+".", at)
		default:
			out = append(out, setting{key: path + name, typ: f.Type, index: at})
		}
	}
	return out
}

func (s setting) parents() []string {
	parts := strings.Split(s.key, ".")
	return parts[:len(parts)-1]
}

func (s setting) name() string { return s.key[strings.LastIndexByte(s.key, '.')+1:] }

// env is the variable that sets it.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// secret says that the value must not be printed.
func (s setting) secret() bool { return s.name() == "token" || s.name() == "password" }

// structured says that only the file can hold the value.
func (s setting) structured() bool { return s.typ == reflect.TypeFor[[]Certificate]() }

func (s setting) field(c *Config) reflect.Value {
	return reflect.ValueOf(c).Elem().FieldByIndex(s.index)
}

// shown is the value as people may see it.
func (s setting) shown(c *Config) any {
	switch v := s.field(c).Interface().(type) {
	case time.Duration:
		return v.String()
	case []string:
		if v == nil {
			return []string{}
		}
		return v
	case []Certificate:
		list := []map[string]string{}
		for _, f := range v {
			list = append(list, map[string]string{"cert_file": f.CertFile, "key_file": f.KeyFile})
		}
		return list
	case string:
		if s.secret() {
			return Secret(v).String()
		}
		return v
	default:
		return v
	}
}

// set puts raw, as the file, a variable or a flag gave it, into c. The error
// says what is accepted and quotes no secret.
func (s setting) set(c *Config, raw any) error {
	v, err := s.convert(raw)
	if err != nil {
		return err
	}
	s.field(c).Set(reflect.ValueOf(v).Convert(s.typ))
	return nil
}

func (s setting) convert(raw any) (any, error) {
	text, isText := raw.(string)
	switch s.typ {
	case reflect.TypeFor[time.Duration]():
		return toDuration(raw)
	case reflect.TypeFor[[]string]():
		return toList(raw)
	case reflect.TypeFor[[]Certificate]():
		return toCertificates(raw)
	}
	switch s.typ.Kind() {
	case reflect.String:
		if isText {
			return text, nil
		}
		return nil, fmt.Errorf("is %s; want text (in quotes)", kindOf(raw))
	case reflect.Bool:
		if b, ok := raw.(bool); ok {
			return b, nil
		}
		if text == "true" || text == "false" {
			return text == "true", nil
		}
		return nil, fmt.Errorf("is %s; want true or false", describe(raw))
	case reflect.Int, reflect.Int64:
		switch n := raw.(type) {
		case int:
			return int64(n), nil
		case int64:
			return n, nil
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
		return nil, fmt.Errorf("is %s; want a whole number", describe(raw))
	case reflect.Float64:
		switch n := raw.(type) {
		case int:
			return float64(n), nil
		case float64:
			return n, nil
		}
		if n, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(n) {
			return n, nil
		}
		return nil, fmt.Errorf("is %s; want a number", describe(raw))
	}
	return nil, fmt.Errorf("has no reader for %s", s.typ)
}

func toDuration(raw any) (time.Duration, error) {
	if n, ok := raw.(int); ok && n == 0 {
		return 0, nil
	}
	text, _ := raw.(string)
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("is %s; want a duration with its unit, such as 250ms, 30s or 5m", describe(raw))
	case d < 0:
		return 0, fmt.Errorf("is %s; want a duration that is not negative", d)
	}
	return d, nil
}

func toList(raw any) ([]string, error) {
	var out []string
	switch v := raw.(type) {
	case string: // a variable or a flag: a,b
		for word := range strings.SplitSeq(v, ",") {
			if word = strings.TrimSpace(word); word != "" {
				out = append(out, word)
			}
		}
	case []string:
		out = v
	case []any:
		for i, e := range v {
			word, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("has %s at place %d; want text (in quotes)", kindOf(e), i)
			}
			out = append(out, word)
		}
	default:
		return nil, fmt.Errorf("is %s; want a list", kindOf(raw))
	}
	return out, nil
}

func toCertificates(raw any) ([]Certificate, error) {
	const want = "want a list of {cert_file: …, key_file: …}"
	list, ok := raw.([]any)
	if !ok {
		return nil, fmt.Errorf("is %s; %s", kindOf(raw), want)
	}
	var out []Certificate
	for i, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("has %s at place %d; %s", kindOf(e), i, want)
		}
		var c Certificate
		for name, v := range m {
			text, ok := v.(string)
			switch {
			case !ok:
				return nil, fmt.Errorf("has %s for %q at place %d; %s", kindOf(v), name, i, want)
			case name == "cert_file":
				c.CertFile = text
			case name == "key_file":
				c.KeyFile = text
			default:
				return nil, fmt.Errorf("has the unknown key %q at place %d; %s", name, i, want)
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// describe names a value: what it is, and which where that is short.
func describe(raw any) string {
	if s, ok := raw.(string); ok && len(s) <= 40 {
		return strconv.Quote(s)
	}
	return kindOf(raw)
}

func kindOf(raw any) string {
	switch raw.(type) {
	case nil:
		return "null"
	case string:
		return "text"
	case bool:
		return "true or false"
	case int, int64, uint64, float64:
		return "a number"
	case []any, []string:
		return "a list"
	}
	return "a mapping"
}
