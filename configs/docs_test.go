package configs

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// kindInDocs is what the reference calls the type of a setting.
func kindInDocs(s setting) string {
	switch {
	case s.secret():
		return "secret"
	case s.typ == reflect.TypeFor[time.Duration]():
		return "duration"
	}
	switch s.typ.Kind() {
	case reflect.Bool:
		return "flag"
	case reflect.Slice:
		return "list"
	case reflect.String:
		return "text"
	}
	return "number"
}

func TestTheReferenceHasEveryKeyWithItsVariableTypeAndDefault(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(strings.TrimSpace(line), " | "); strings.HasPrefix(line, "| `") {
			if len(cells) != 5 {
				t.Errorf("a row with %d cells: %s", len(cells), line)
				continue
			}
			key := strings.Trim(cells[0], "| `")
			if documented[key] != nil {
				t.Errorf("%s stands there twice", key)
			}
			documented[key] = cells[1:4]
		}
	}
	def := Default()
	for _, s := range settings() {
		value, err := json.Marshal(s.shown(&def))
		if err != nil {
			t.Fatal(err)
		}
		env, shown := "`"+s.env()+"`", "`"+string(value)+"`"
		if s.structured() {
			env = "–" // only a file can hold it
		}
		if kindInDocs(s) == "duration" {
			shown = strings.ReplaceAll(shown, `"`, "") // as YAML has it
		}
		if want := []string{env, kindInDocs(s), shown}; !reflect.DeepEqual(documented[s.key], want) {
			t.Errorf("%s: documented as %q, want %q", s.key, documented[s.key], want)
		}
		delete(documented, s.key)
	}
	for key := range documented {
		t.Errorf("%s is documented and no setting", key)
	}
}
