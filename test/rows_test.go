package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sources is the text of a package's tests.
func sources(t *testing.T, pkg string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// TestEveryRowHasItsTest reads docs/rows.md: each row stands there once, with
// tests that exist or with the reason why there is none.
func TestEveryRowHasItsTest(t *testing.T) {
	page, err := os.ReadFile("../docs/rows.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], " ---") || cells[1] == " row " {
			continue
		}
		row, tests := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[3])
		if _, twice := rows[row]; twice {
			t.Errorf("row %s stands there twice", row)
		}
		rows[row] = tests
	}
	for _, r := range []struct {
		letter      string
		first, last int
	}{{"", 1, 71}, {"", 78, 95}, {"R", 1, 6}, {"C", 1, 11}, {"E", 1, 11}, {"P", 1, 17}, {"P", 19, 19}, {"F", 1, 21}} {
		for n := r.first; n <= r.last; n++ {
			row := fmt.Sprint(r.letter, n)
			tests, ok := rows[row]
			if !ok {
				t.Errorf("row %s is missing", row)
				continue
			}
			if reason, none := strings.CutPrefix(tests, "not here: "); none && reason != "" {
				continue
			}
			checkTests(t, row, tests)
		}
	}
}

var testName = regexp.MustCompile("`([a-z0-9/]+)\\.(Test\\w+)(?:/([^`]+))?`")

func checkTests(t *testing.T, row, tests string) {
	t.Helper()
	names := testName.FindAllStringSubmatch(tests, -1)
	if len(names) == 0 || len(names) != strings.Count(tests, "`")/2 {
		t.Errorf("row %s: %q does not name tests as `package.Test/case`", row, tests)
	}
	for _, n := range names {
		text := sources(t, n[1])
		if !strings.Contains(text, "func "+n[2]+"(t *testing.T)") {
			t.Errorf("row %s: %s has no %s", row, n[1], n[2])
		}
		if n[3] != "" && !regexp.MustCompile(`"`+regexp.QuoteMeta(n[3])+`\b`).MatchString(text) {
			t.Errorf("row %s: no case of %s.%s begins with %q", row, n[1], n[2], n[3])
		}
	}
}
