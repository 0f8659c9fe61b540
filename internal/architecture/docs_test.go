package architecture

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weft/drop"
	"weft/internal/doctor"
	"weft/internal/hostnet"
	"weft/internal/manual"
)

const reference = "docs/operations/reference.md"

func read(t *testing.T, path string) string {
	t.Helper()
	return manual.Read(t, path)
}

// expectRows fails unless a section of the reference has a row for each name, and no other.
func expectRows(t *testing.T, section string, names map[string]bool) {
	t.Helper()
	if rows := manual.Rows(t, reference, section); len(names) == 0 || !maps.Equal(names, rows) {
		t.Errorf("%s, %s, has rows of\n%v,\nthe code has\n%v", reference, section, slices.Sorted(maps.Keys(rows)), slices.Sorted(maps.Keys(names)))
	}
}

func TestReferenceHasEveryDropReason(t *testing.T) {
	reasons := map[string]bool{}
	for _, reason := range drop.All() {
		reasons[reason.String()] = true
	}
	expectRows(t, "Drop reasons", reasons)
}

func TestReferenceHasEveryGuardCounter(t *testing.T) {
	counters := map[string]bool{}
	for _, counter := range hostnet.DropCounters() {
		counters[counter] = true
	}
	expectRows(t, "Counters of the guard table", counters)
}

// What weft status and weft explain say of a drop reason, or of a counter of the guard table, the
// reference says too.
func TestReferenceExplainsDropsAsWeftDoes(t *testing.T) {
	links := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	text := links.ReplaceAllString(read(t, reference), "$1")
	expect := func(name, what, remedy string) {
		row := regexp.MustCompile("(?m)^\\| [^|]*`" + name + "`[^|]* \\| " + regexp.QuoteMeta(what) + " \\| " + regexp.QuoteMeta(remedy))
		if what == "" || remedy == "" || !row.MatchString(text) {
			t.Errorf("%s has no row of %s with %q and %q", reference, name, what, remedy)
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

func TestReferenceHasEveryWarning(t *testing.T) {
	expectRows(t, "Warnings", warnings(t))
}

// warnings are the codes of all warnings that weftd can raise.
func warnings(t *testing.T) map[string]bool {
	t.Helper()
	codes := map[string]bool{}
	literal := regexp.MustCompile(`\bCode(?:: |[A-Z][A-Za-z]* += )"([a-z_]+)"`)
	forEachFile(t, func(path, text string) {
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			for _, code := range literal.FindAllStringSubmatch(text, -1) {
				codes[code[1]] = true
			}
		}
	})
	return codes
}

// A check that looks for what a warning is about has the code of that warning.
func TestReferenceHasEveryCheck(t *testing.T) {
	checks, warnings := map[string]bool{}, warnings(t)
	for _, code := range doctor.Codes() {
		if !warnings[code] {
			checks[code] = true
		}
	}
	expectRows(t, "Checks of `weft doctor`", checks)
}

// forEachFile calls f with each file of the repository that is text.
func forEachFile(t *testing.T, f func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		path = strings.TrimPrefix(path, "../../")
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == ".git" || path == "bin"):
			return filepath.SkipDir
		case !d.Type().IsRegular() || !slices.Contains([]string{"", ".go", ".json", ".md", ".service", ".sh", ".yaml"}, filepath.Ext(path)):
			return nil
		}
		f(path, read(t, path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryTestThatTheDocsNameExists(t *testing.T) {
	var tests strings.Builder
	forEachFile(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") {
			tests.WriteString(text)
		}
	})
	for _, page := range manual.All(t) {
		for _, name := range testName.FindAllString(read(t, page), -1) {
			if !strings.Contains(tests.String(), "func "+name+"(") {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
	}
}

var testName = regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]+`)

// Operators look for what to do; which test shows it stands in FAULTS.md and SECURITY.md.
func TestOperatorsPagesNameNoTests(t *testing.T) {
	for _, page := range manual.Operators(t) {
		if name := testName.FindString(read(t, page)); name != "" {
			t.Errorf("%s names %s", page, name)
		}
	}
}

func TestLinksOfTheDocsWork(t *testing.T) {
	for _, page := range manual.All(t) {
		for _, link := range manual.Links(t, page) {
			file, anchor, _ := strings.Cut(link, "#")
			target := page
			if file != "" {
				target = path.Join(path.Dir(page), file)
			}
			expectTarget(t, page, target, anchor)
		}
	}
}

// expectTarget fails unless there is a file, and in it a section, if one is named.
func expectTarget(t *testing.T, where, file, anchor string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
		t.Errorf("%s names %s, which does not exist", where, file)
	} else if anchor != "" && !manual.Anchors(t, file)[anchor] {
		t.Errorf("%s names %s#%s, which is no heading there", where, file, anchor)
	}
}

// What errors, comments, alerts and unit files name, too.
func TestPagesThatFilesNameExist(t *testing.T) {
	named := regexp.MustCompile(`\b(docs/[A-Za-z/-]+\.md)(?:#([a-z0-9_-]+))?`)
	forEachFile(t, func(path, text string) {
		for _, page := range named.FindAllStringSubmatch(text, -1) {
			expectTarget(t, path, page[1], page[2])
		}
	})
}

func TestEveryOperatorsPageIsInTheContents(t *testing.T) {
	contents := manual.Links(t, "docs/operations/README.md")
	for _, page := range manual.Operators(t) {
		if name, ok := strings.CutPrefix(page, "docs/operations/"); ok && name != "README.md" && !slices.Contains(contents, name) {
			t.Errorf("docs/operations/README.md has no link to %s", name)
		}
	}
}
