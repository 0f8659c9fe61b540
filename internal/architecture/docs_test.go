package architecture

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"weft/drop"
	"weft/internal/config"
	"weft/internal/doctor"
	"weft/internal/hostnet"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestManualHasEveryReasonCounterAndKey(t *testing.T) {
	manual := read(t, "docs/OPERATIONS.md")
	for _, reason := range drop.All() {
		if !strings.Contains(manual, "`"+reason.String()+"`") {
			t.Errorf("no word of the drop reason %s", reason)
		}
	}
	for _, counter := range regexp.MustCompile(`drop[A-Z][A-Za-z]+ += "([a-z_]+)"`).FindAllStringSubmatch(read(t, "internal/hostnet/ruleset.go"), -1) {
		if !strings.Contains(manual, "`"+counter[1]+"`") {
			t.Errorf("no word of the guard table's counter %s", counter[1])
		}
	}
	flags := pflag.NewFlagSet("weftd", pflag.ContinueOnError)
	config.AddFlags(flags)
	rows := regexp.MustCompile("(?m)^\\| `([A-Za-z0-9.]+)` \\|").FindAllStringSubmatch(manual, -1)
	documented := map[string]bool{"config": true} // where the file is, not what is in it
	for _, row := range rows {
		dashed := regexp.MustCompile("([a-z])([A-Z])").ReplaceAllString(strings.ReplaceAll(row[1], ".", "-"), "$1-$2")
		documented[strings.ToLower(dashed)] = true
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !documented[f.Name] {
			t.Errorf("no word of the key behind --%s", f.Name)
		}
	})
}

// What weft status and weft explain say of a drop reason, or of a counter of the guard table, the
// manual says too.
func TestManualExplainsDropsAsWeftDoes(t *testing.T) {
	links := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	manual := links.ReplaceAllString(read(t, "docs/OPERATIONS.md"), "$1")
	expect := func(name, what, remedy string) {
		row := regexp.MustCompile("(?m)^\\| [^|]*`" + name + "`[^|]* \\| " + regexp.QuoteMeta(what) + " \\| " + regexp.QuoteMeta(remedy))
		if what == "" || remedy == "" || !row.MatchString(manual) {
			t.Errorf("docs/OPERATIONS.md has no row of %s with %q and %q", name, what, remedy)
		}
	}
	for _, reason := range drop.All() {
		e := reason.Explain()
		expect(reason.String(), e.What, e.Remedy)
	}
	for _, counter := range hostnet.DropCounters() {
		e := hostnet.Explain(counter)
		expect(counter, e.What, e.Remedy)
	}
}

// Each warning that weftd can raise has a row in the manual, and each row is of such a one.
func TestTheManualHasEveryWarning(t *testing.T) {
	codes := map[string]bool{}
	literal := regexp.MustCompile(`\bCode(?:: |[A-Z][A-Za-z]* += )"([a-z_]+)"`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			for _, code := range literal.FindAllStringSubmatch(read(t, strings.TrimPrefix(path, "../../")), -1) {
				codes[code[1]] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(read(t, "docs/OPERATIONS.md"), "\n### Warnings\n")
	section, _, _ = strings.Cut(section, "\n\nweftd logs drops")
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (`+"`[a-z_`, ]+"+`) \| [^|]+ \| [^|]+ \|$`).FindAllStringSubmatch(section, -1) {
		for code := range strings.SplitSeq(row[1], ", ") {
			rows[strings.Trim(code, "`")] = true
		}
	}
	if len(rows) == 0 || !maps.Equal(codes, rows) {
		t.Errorf("the rows of docs/OPERATIONS.md are of the warnings\n%v,\nweftd has\n%v", slices.Sorted(maps.Keys(rows)), slices.Sorted(maps.Keys(codes)))
	}
}

// Each check of weft doctor stands in its table, or has the code of a warning.
func TestTheManualHasEveryCheck(t *testing.T) {
	manual := read(t, "docs/OPERATIONS.md")
	for _, code := range doctor.Codes() {
		if !regexp.MustCompile(`(?m)^\| [^|]*` + "`" + code + "`").MatchString(manual) {
			t.Errorf("no row of the check %s", code)
		}
	}
}

func TestEveryTestThatTheDocsNameExists(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			tests.WriteString(read(t, strings.TrimPrefix(path, "../../")))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(docs, "../../README.md") {
		for _, name := range regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]+`).FindAllString(read(t, strings.TrimPrefix(doc, "../../")), -1) {
			if !strings.Contains(tests.String(), "func "+name+"(") {
				t.Errorf("%s names %s, which does not exist", doc, name)
			}
		}
	}
}
