// Package scripts holds the programs and scripts around the gateway. Its test
// reads the files that no compiler reads: no container engine runs where the
// tests do.
package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// instructions gives the Dockerfile's lines without comments, long ones
// joined; the last stage alone when last is set.
func instructions(t *testing.T, last bool) []string {
	t.Helper()
	var out []string
	text := strings.ReplaceAll(read(t, "Dockerfile"), "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if last && strings.HasPrefix(line, "FROM ") {
			out = nil
		}
		out = append(out, line)
	}
	return out
}

func TestImageIsBuiltAsMakeBuilds(t *testing.T) {
	m := regexp.MustCompile(`(?m)^BUILD = (.*)$`).FindStringSubmatch(read(t, "Makefile"))
	if m == nil {
		t.Fatal("the Makefile has no line BUILD = …")
	}
	if !strings.HasPrefix(m[1], "CGO_ENABLED=0 ") {
		t.Errorf("make builds no static program: %s", m[1])
	}
	// make's $(VERSION) is the image's build argument ${VERSION}.
	line := "RUN " + strings.NewReplacer("$(", "${", ")", "}").Replace(m[1]) + " -o /out/sluice ./cmd/sluice"
	if !slices.Contains(instructions(t, false), line) {
		t.Errorf("the Dockerfile lacks the line that make builds with:\n%s", line)
	}
}

func TestImageIsBuiltWithTheModulesGo(t *testing.T) {
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	if m == nil {
		t.Fatal("go.mod has no go line")
	}
	if first := instructions(t, false)[0]; !strings.HasPrefix(first, "FROM golang:"+m[1]+"-") {
		t.Errorf("the first stage is %q, go.mod wants Go %s", first, m[1])
	}
}

func TestImageRunsAsAnOrdinaryUserWithoutAShell(t *testing.T) {
	stage := instructions(t, true)
	if stage[0] != "FROM scratch" {
		t.Errorf("the image starts from %q, want scratch", stage[0])
	}
	for _, want := range []string{
		`^USER [1-9]\d*:[1-9]\d*$`, // by number: there is no /etc/passwd
		`^COPY --from=build /etc/ssl/certs/ca-certificates\.crt /etc/ssl/certs/ca-certificates\.crt$`,
		`^HEALTHCHECK .* CMD \["/sluice", "healthcheck"\]$`,
		`^ENTRYPOINT \["/sluice"\]$`,
		`^CMD \["serve"\]$`,
	} {
		if !slices.ContainsFunc(stage, regexp.MustCompile(want).MatchString) {
			t.Errorf("the last stage has no line like %s", want)
		}
	}
	for _, line := range stage {
		if strings.HasPrefix(line, "RUN ") {
			t.Errorf("the last stage has no shell for %q", line)
		}
	}
	// Whoever owns the directory in the image owns the volume made from it.
	user := ""
	for _, line := range stage {
		if u, ok := strings.CutPrefix(line, "USER "); ok {
			user = u
		}
	}
	for _, line := range stage {
		if dir, ok := strings.CutPrefix(line, "VOLUME "); ok {
			if !slices.ContainsFunc(stage, func(l string) bool {
				return strings.HasPrefix(l, "COPY --from=build --chown="+user+" ") && strings.HasSuffix(l, " "+dir)
			}) {
				t.Errorf("the volume %s does not belong to the user %s", dir, user)
			}
		}
	}
}

func TestImageGetsEveryPackageItCompiles(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}", "./cmd/sluice")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var sent []string
	for line := range strings.Lines(read(t, ".dockerignore")) {
		if dir, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			sent = append(sent, strings.TrimSuffix(dir, "/"))
		}
	}
	for path := range strings.FieldsSeq(string(out)) {
		rel := strings.TrimPrefix(path, "github.com/sluice-gateway/sluice/")
		top, _, _ := strings.Cut(rel, "/")
		if !slices.Contains(sent, top) {
			t.Errorf(".dockerignore keeps %s, which cmd/sluice imports, out of the build", rel)
		}
	}
}
