package middleware

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/routing"
)

// decode fills the struct that out points to from a decoded JSON or YAML
// mapping. It reads strictly: an unknown field or a value of the wrong type
// is a fault with its path. A fault never quotes the value, which may be
// secret.
func decode(config map[string]any, out any, field string) routing.Faults {
	var d decoder
	d.value(config, reflect.ValueOf(out).Elem(), field)
	return d.faults
}

type decoder struct{ faults routing.Faults }

func (d *decoder) fault(field, format string, args ...any) {
	d.faults = append(d.faults, routing.Fault{Field: field, Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) value(in any, out reflect.Value, field string) {
	if in == nil {
		d.fault(field, "has no value; leave the field out instead")
		return
	}
	if out.Kind() == reflect.Pointer {
		out.Set(reflect.New(out.Type().Elem()))
		d.value(in, out.Elem(), field)
		return
	}
	if t, ok := out.Addr().Interface().(encoding.TextUnmarshaler); ok {
		s, ok := in.(string)
		if !ok {
			d.fault(field, "must be a string")
		} else if err := t.UnmarshalText([]byte(s)); err != nil {
			d.fault(field, "%v", err)
		}
		return
	}
	switch out.Kind() {
	case reflect.Struct:
		d.fields(in, out, field)
	case reflect.Map:
		d.mapping(in, out, field)
	case reflect.Slice:
		d.list(in, out, field)
	default:
		d.scalar(in, out, field)
	}
}

func (d *decoder) fields(in any, out reflect.Value, field string) {
	m, ok := in.(map[string]any)
	if !ok {
		d.fault(field, "must be a mapping")
		return
	}
	byName := map[string][]int{}
	for _, f := range reflect.VisibleFields(out.Type()) { // those of embedded structs too
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			byName[name] = f.Index
		}
	}
	for _, k := range sortedKeys(m) {
		index, ok := byName[k]
		if !ok {
			d.fault(Field(field, k), "unknown field; accepted: %s", join(sortedKeys(byName)))
			continue
		}
		d.value(m[k], out.FieldByIndex(index), Field(field, k))
	}
}

func (d *decoder) mapping(in any, out reflect.Value, field string) {
	m, ok := in.(map[string]any)
	if !ok {
		d.fault(field, "must be a mapping")
		return
	}
	t := out.Type()
	out.Set(reflect.MakeMapWithSize(t, len(m)))
	for _, k := range sortedKeys(m) {
		v := reflect.New(t.Elem()).Elem()
		d.value(m[k], v, Field(field, k))
		out.SetMapIndex(reflect.ValueOf(k).Convert(t.Key()), v)
	}
}

func (d *decoder) list(in any, out reflect.Value, field string) {
	l, ok := in.([]any)
	if !ok {
		d.fault(field, "must be a list")
		return
	}
	out.Set(reflect.MakeSlice(out.Type(), len(l), len(l)))
	for i, v := range l {
		d.value(v, out.Index(i), field+"["+strconv.Itoa(i)+"]")
	}
}

func (d *decoder) scalar(in any, out reflect.Value, field string) {
	v := reflect.ValueOf(in)
	switch out.Kind() {
	case reflect.Interface:
		out.Set(v)
	case reflect.String:
		if v.Kind() != reflect.String {
			d.fault(field, "must be a string; put it in quotes")
			return
		}
		out.SetString(v.String())
	case reflect.Bool:
		if v.Kind() != reflect.Bool {
			d.fault(field, "must be true or false")
			return
		}
		out.SetBool(v.Bool())
	case reflect.Int, reflect.Int64:
		n, ok := integer(v)
		if !ok || out.OverflowInt(n) {
			d.fault(field, "must be a whole number")
			return
		}
		out.SetInt(n)
	case reflect.Float64:
		n, ok := number(v)
		if !ok {
			d.fault(field, "must be a number")
			return
		}
		out.SetFloat(n)
	default:
		panic("plugin configuration of type " + out.Type().String() + " cannot be decoded")
	}
}

// number reads what JSON (float64, json.Number) and YAML (int, float64) make
// of a number.
func number(v reflect.Value) (float64, bool) {
	switch {
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	case v.Type().String() == "json.Number":
		f, err := strconv.ParseFloat(v.String(), 64)
		return f, err == nil
	}
	return 0, false
}

func integer(v reflect.Value) (int64, bool) {
	if v.CanInt() {
		return v.Int(), true
	}
	f, ok := number(v)
	// Past 2^53 a float64 no longer holds every whole number.
	return int64(f), ok && f == math.Trunc(f) && math.Abs(f) <= 1<<53
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
