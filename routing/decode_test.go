package routing

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// decodeFile decodes what a file of testdata holds, by the second word of
// its name, with the function that serves that kind.
func decodeFile(kind string, value []byte) (spec any, faults Faults) {
	switch kind {
	case "route":
		return whole(DecodeRoute(value))
	case "service":
		return whole(DecodeService(value))
	case "consumer":
		return whole(DecodeConsumer(value))
	case "plugin":
		config, _, faults := DecodePlugin(value)
		return config, faults
	case "active":
		a, err := ParseActive(string(value))
		if err != nil {
			return nil, Faults{{Message: err.Error(), Code: ProblemActive}}
		}
		return a, nil
	case "tags":
		return whole(RouteFromTags("orders", "sluice.", strings.Split(strings.TrimSpace(string(value)), "\n")))
	}
	panic("no such kind: " + kind)
}

func whole[T any](spec *T, faults Faults) (any, Faults) {
	if spec == nil {
		return nil, faults
	}
	return spec, faults
}

// wanted splits a bad file into the faults it must give and what follows.
func wanted(file []byte) (want []string, rest []byte) {
	text := string(file)
	for strings.HasPrefix(text, "# want: ") {
		line, after, _ := strings.Cut(text, "\n")
		want = append(want, strings.TrimPrefix(line, "# want: "))
		text = after
	}
	return want, []byte(text)
}

func TestEveryBadFileGivesExactlyItsFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no bad files", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			file, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			kind := strings.Split(filepath.Base(name), ".")[1]
			want, value := wanted(file)
			if kind != "active" && kind != "tags" {
				value = file // the comment is part of the document
			}
			spec, faults := decodeFile(kind, value)
			if spec != nil && !reflect.ValueOf(spec).IsZero() {
				t.Errorf("a document with faults gave a spec: %+v", spec)
			}
			if len(want) == 0 {
				t.Fatal("the file has no # want: line")
			}
			if len(faults) != len(want) {
				t.Errorf("%d faults, want %d:\n%v", len(faults), len(want), strings.ReplaceAll(faults.Error(), "; ", ";\n"))
			}
			for _, w := range want {
				if !hasFault(faults, w, kind) {
					t.Errorf("no fault %q in\n%v", w, faults.Error())
				}
			}
			if strings.Contains(faults.Error(), "s3cret") {
				t.Errorf("a fault quotes what may be secret: %v", faults.Error())
			}
			checkFaults(t, faults)
		})
	}
}

// hasFault looks for "field: part of the message"; an active value has no
// fields, and "the document" stands for the whole.
func hasFault(faults Faults, want, kind string) bool {
	field, part, _ := strings.Cut(want, ": ")
	if kind == "active" {
		field, part = "", want
	} else if field == "the document" {
		field = ""
	}
	for _, f := range faults {
		if f.Field == field && strings.Contains(f.Message, part) {
			return true
		}
	}
	return false
}

// checkFaults checks what holds for every fault: it names its field unless
// it is about the form of the whole, and is one line.
func checkFaults(t *testing.T, faults Faults) {
	t.Helper()
	for _, f := range faults {
		if f.Code == "" || f.Message == "" {
			t.Errorf("fault without code or message: %#v", f)
		}
		if f.Field == "" && f.Code != ProblemSyntax && f.Code != ProblemActive {
			t.Errorf("fault without a field: %#v", f)
		}
		if hasControl(f.Error()) {
			t.Errorf("fault with a control character: %q", f.Error())
		}
	}
}

func TestEveryGoodFileComesBackFromItsCanonicalForm(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no good files", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			value, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			kind := strings.Split(filepath.Base(name), ".")[1]
			spec, faults := decodeFile(kind, value)
			if faults != nil {
				t.Fatal(faults)
			}
			checkCanonical(t, kind, spec)
		})
	}
}

// checkCanonical checks that spec, written out as JSON, is read back the same.
func checkCanonical(t *testing.T, kind string, spec any) {
	t.Helper()
	canonical, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(canonical) > MaxDocumentBytes {
		return
	}
	again, faults := decodeFile(kind, canonical)
	if faults != nil {
		t.Fatalf("%s: %v", canonical, faults)
	}
	if !reflect.DeepEqual(spec, again) {
		t.Fatalf("read %+v, wrote %s, read %+v", spec, canonical, again)
	}
}

// The files everything.*.yaml set every field; a field that decoding forgets
// stays zero.
func TestNoFieldOfADocumentIsForgotten(t *testing.T) {
	read := func(name string) any {
		value, err := os.ReadFile("testdata/good/" + name)
		if err != nil {
			t.Fatal(err)
		}
		spec, faults := decodeFile(strings.Split(name, ".")[1], value)
		if faults != nil {
			t.Fatal(name, faults)
		}
		return spec
	}
	// What cannot stand beside the other fields, or is zero on purpose.
	elsewhere := map[string]string{
		"RouteSpec.Redirect": "redirect.route.yaml", "RouteSpec.Respond": "respond.route.yaml", "RouteSpec.StripPrefix": "root.route.yaml",
		"ServiceSpec.Targets": "targets.service.yaml", "ServiceSpec.URL": "url.service.yaml",
		"TLSSpec.InsecureSkipVerify": "url-with-grpcs.service.yaml",
	}
	var check func(v reflect.Value)
	check = func(v reflect.Value) {
		for v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return
		}
		for f, fv := range v.Fields() {
			name := v.Type().Name() + "." + f.Name
			if fv.IsZero() && elsewhere[name] == "" && v.Type().Name() != "BalanceSpec" {
				t.Errorf("%s is zero", name)
			}
			check(fv)
		}
	}
	route, service := read("everything.route.yaml"), read("everything.service.yaml")
	check(reflect.ValueOf(route))
	check(reflect.ValueOf(service))
	for name, file := range elsewhere {
		_, field, _ := strings.Cut(name, ".")
		v := reflect.ValueOf(read(file)).Elem()
		if strings.HasPrefix(name, "TLSSpec") {
			v = v.FieldByName("TLS").Elem()
		}
		if v.FieldByName(field).IsZero() {
			t.Errorf("%s is zero in %s", name, file)
		}
	}
}

func TestDecodedDocumentsHoldWhatWasWritten(t *testing.T) {
	ten := Duration(10e9)
	two := 2
	want := &RouteSpec{
		Hosts: []string{"api.example.com"}, Path: "/orders/:id", Methods: []string{"GET"},
		Service: "orders", Timeout: &ten, Retries: &two,
		Plugins: map[string]map[string]any{"x": {"whole": int64(1), "part": 0.5, "list": []any{"a", true, nil}}},
	}
	for name, doc := range map[string]string{
		"JSON":                   `{"hosts":["API.example.com."],"path":"/orders/:id","methods":["GET"],"service":"orders","timeout":"10s","retries":2,"plugins":{"x":{"whole":1.0,"part":5e-1,"list":["a",true,null]}}}`,
		"JSON with a mark":       "\ufeff \n" + `{ "hosts" : [ "api.example.com" ] , "path":"\/orders\/:id","methods":["\u0047ET"],"service":"orders","timeout":"10s","retries":2,"plugins":{"x":{"whole":1,"part":0.5,"list":["a",true,null]}}} `,
		"YAML":                   "hosts: [api.example.com]\npath: /orders/:id\nmethods: [GET]\nservice: orders\ntimeout: 10s\nretries: 2\nplugins: {x: {whole: 1, part: 0.5, list: [a, true, null]}}\n",
		"YAML with its markers":  "---\nhosts:\n  - api.example.com\npath: /orders/:id\nmethods: [GET]\nservice: orders\ntimeout: 10s\nretries: 2\nplugins: {x: {whole: 1, part: 0.5, list: [a, true, ~]}}\n...\n",
		"YAML with empty fields": "hosts: [api.example.com]\npath: /orders/:id\nmethods: [GET]\nheaders: {}\nlabels: {}\nservice: orders\ntimeout: 10s\nretries: 2\nplugins: {x: {whole: 1, part: 0.5, list: [a, true, null]}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, faults := DecodeRoute([]byte(doc))
			if faults != nil {
				t.Fatal(faults)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestDocumentsThatAreNoTextAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ doc, want string }{
		"nothing":            {"", "is empty"},
		"white space":        {" \n\t", "is empty"},
		"a mark alone":       {"\ufeff", "is empty"},
		"not UTF-8":          {"path: /a\xff", "is not UTF-8"},
		"NUL":                {"path: /a\x00", "holds a NUL byte"},
		"too large":          {"# " + strings.Repeat("a", MaxDocumentBytes), "has 1048578 bytes; a document has at most 1048576"},
		"two JSON documents": {`{"path":"/a"}{"path":"/b"}`, "is not JSON"},
		"JSON cut short":     {`{"path":"/orders/*","service":"orders"`, "is not JSON: line 1, column 38"},
		"JSON null":          {"null", "is null"},
		"JSON list":          {"[]", "is a list"},
		"JSON nested deep":   {strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), "the document"},
		"YAML nested deep":   {strings.Repeat("[", 100_000), "the document"},
	} {
		t.Run(name, func(t *testing.T) {
			spec, faults := DecodeRoute([]byte(c.doc))
			if spec != nil || len(faults) != 1 || faults[0].Code != ProblemSyntax || !strings.Contains(faults[0].Message, c.want) {
				t.Errorf("got %v, %v; want one fault with %q", spec, faults, c.want)
			}
		})
	}
}

func TestDuplicateKeysInJSONAreRefused(t *testing.T) {
	_, faults := DecodeRoute([]byte(`{"path":"/a","service":"a","labels":{"a":"b","\u0061":"c"},"path":"/b"}`))
	want := Faults{
		{Field: "labels.a", Code: ProblemSyntax, Message: "is given twice"},
		{Field: "path", Code: ProblemSyntax, Message: "is given twice"},
	}
	if !reflect.DeepEqual(faults, want) {
		t.Errorf("got %v, want %v", faults, want)
	}
}

func TestListsAndMappingsAreBounded(t *testing.T) {
	repeat := func(n int, format string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(parts, ",")
	}
	for want, doc := range map[string]string{
		"hosts: has 1001 elements; at most 1000 are accepted":     `{"path":"/","service":"a","hosts":[` + repeat(1001, `"h%d.test"`) + `]}`,
		"methods: has 51 elements; at most 50 are accepted":       `{"path":"/","service":"a","methods":[` + repeat(51, `"M%d"`) + `]}`,
		"headers: has 65 entries; at most 64 are accepted":        `{"path":"/","service":"a","headers":{` + repeat(65, `"X-%d":"a"`) + `}}`,
		"query: has 65 entries; at most 64 are accepted":          `{"path":"/","service":"a","query":{` + repeat(65, `"q%d":"a"`) + `}}`,
		"labels: has 65 entries; at most 64 are accepted":         `{"path":"/","service":"a","labels":{` + repeat(65, `"l%d":"a"`) + `}}`,
		"plugins: has 65 entries; at most 64 are accepted":        `{"path":"/","service":"a","plugins":{` + repeat(65, `"p%d":{}`) + `}}`,
		"targets: has 10001 elements; at most 10000 are accepted": `{"targets":[` + repeat(10001, `{"address":"a%d.test:80"}`) + `]}`,
		"subsets: has 101 entries; at most 100 are accepted":      `{"subsets":{` + repeat(101, `"s%d":{"tags":["a"]}`) + `}}`,
	} {
		field, _, _ := strings.Cut(want, ":")
		t.Run(field, func(t *testing.T) {
			kind := "route"
			if field == "targets" || field == "subsets" {
				kind = "service"
			}
			if _, faults := decodeFile(kind, []byte(doc)); faults.Error() != want {
				t.Errorf("got %v, want %s", faults, want)
			}
		})
	}
}

func TestADocumentOfNothingButFaultsListsSomeOfThem(t *testing.T) {
	var fields, twice strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&fields, `"field-%d":%d,`, i, i)
		twice.WriteString(`"x":1,`)
	}
	for name, doc := range map[string]string{
		"unknown fields": "{" + fields.String() + `"path":"/"}`,
		"equal keys":     "{" + twice.String() + `"path":"/"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if spec, faults := DecodeRoute([]byte(doc)); spec != nil || len(faults) != maxFaults {
				t.Errorf("got %v and %d faults, want %d", spec, len(faults), maxFaults)
			}
		})
	}
}

func TestPluginDocumentsSwitchPluginsOffOrConfigureThem(t *testing.T) {
	for name, c := range map[string]struct {
		doc      string
		config   map[string]any
		disabled bool
	}{
		"off":            {`{"disabled": true}`, map[string]any{}, true},
		"configured":     {`{"origins": ["*"]}`, map[string]any{"origins": []any{"*"}}, false},
		"both":           {"disabled: true\nmax_age: 10m", map[string]any{"max_age": "10m"}, true},
		"on, said aloud": {`{"disabled": false, "a": 1}`, map[string]any{"a": int64(1)}, false},
		"defaults":       {`{}`, map[string]any{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			config, disabled, faults := DecodePlugin([]byte(c.doc))
			if faults != nil || disabled != c.disabled || !reflect.DeepEqual(config, c.config) {
				t.Errorf("got %v, %v, %v", config, disabled, faults)
			}
		})
	}
}

// Row 25: values from a key-value store that are code in a rule language.
func TestRow25InjectedRules(t *testing.T) {
	for _, evil := range []string{"a`b", "a`) || Path(`/admin", "a || b", "{a}", "a{{b}}", "a\nb", "a\r\nb"} {
		text, err := json.Marshal(evil)
		if err != nil {
			t.Fatal(err)
		}
		for field, doc := range map[string]string{
			"service":  `{"path":"/a","service":` + string(text) + `}`,
			"path":     `{"path":"/` + string(text[1:]) + `,"service":"a"}`,
			"hosts[0]": `{"path":"/a","service":"a","hosts":[` + string(text) + `]}`,
		} {
			spec, faults := DecodeRoute([]byte(doc))
			if spec != nil || len(faults) != 1 || faults[0].Field != field {
				t.Errorf("%s: got %v, %v; want one fault of %s", doc, spec, faults, field)
			}
		}
		if ValidName(evil) == nil {
			t.Errorf("%q passed for a name", evil)
		}
	}
}

// Row 86: instances that are the machine's own surroundings; bad files
// target-*.service.yaml and url-*.service.yaml hold the ways to write them.
func TestRow86LoopbackIsAnInstanceLikeAnyOther(t *testing.T) {
	for _, address := range []string{"127.0.0.1:8080", "[::1]:8080", "localhost:8080", "10.1.2.3:80", "[fd00::1]:80"} {
		if err := checkTarget(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Row 88: values of documents in decode errors.
func TestRow88FaultsQuoteNoSecret(t *testing.T) {
	const canary = "c4n4ry"
	for _, doc := range []string{
		`{"path":"/a","service":"a","plugins":"` + canary + `"}`,
		`{"path":"/a","service":"a","plugins":{"jwt":"` + canary + `"}}`,
		`{"path":"/a","service":"a","plugins":{"jwt":["` + canary + `"]}}`,
		`{"path":"/a","service":"a","headers":{"Authorization":"~(` + canary + `"}}`,
		`{"path":"/a","service":"a","headers":{"Authorization":["` + canary + `"]}}`,
		`{"path":"/a","service":"a","headers":"` + canary + `"}`,
		`{"path":"/a","service":"a","query":{"key":"~` + canary + `["}}`,
		`{"path":"/a","redirect":{"to":"https://u:` + canary + `@h"}}`,
		`{"path":"/a","redirect":{"to":"` + canary + `"}}`,
		`{"path":"/a","respond":{"headers":{"X-Key":"` + canary + `\n"}}}`,
		`{"path":"/a","respond":{"body":["` + canary + `"]}}`,
		"path: /a\nplugins:\n  jwt:\n    secret: \"" + canary + "\n",
		"path: /a\nplugins: {jwt: {secret: !x " + canary + "}}\n",
		`{"path":"/a","plugins":{"jwt":{"secret":` + canary + `}}}`,
	} {
		_, faults := DecodeRoute([]byte(doc))
		if faults == nil || strings.Contains(faults.Error(), canary) {
			t.Errorf("%s: %v", doc, faults)
		}
	}
	for _, doc := range []string{`{"key_sha256":"` + canary + `"}`, `{"key_sha256":["` + canary + `"]}`} {
		if _, faults := DecodeConsumer([]byte(doc)); faults == nil || strings.Contains(faults.Error(), canary) {
			t.Errorf("%s: %v", doc, faults)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, good := range map[string]bool{
		"orders": true, "Orders-2.v1_x": true, "0": true, strings.Repeat("a", 128): true,
		"": false, "-a": false, ".a": false, "_a": false, "a:b": false, "a/b": false, "a b": false, "é": false, strings.Repeat("a", 129): false,
	} {
		if err := ValidName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
