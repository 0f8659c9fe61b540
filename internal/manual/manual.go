// Package manual reads the documentation for the tests that keep it true: what is made from code, the
// commands, and the links. Only tests use it.
package manual

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the sections of the documentation that are made from code anew")

// root is the repository's folder for every package with such a test.
const root = "../.."

// Operators are the pages that operators read: their commands are run by a test.
func Operators(t *testing.T) []string {
	t.Helper()
	return append(glob(t, "docs/operations/*.md"), "README.md", "docs/METRICS.md")
}

// All are all pages.
func All(t *testing.T) []string {
	t.Helper()
	return append(glob(t, "docs/*.md", "docs/operations/*.md"), "README.md")
}

func glob(t *testing.T, patterns ...string) (pages []string) {
	t.Helper()
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no page matches %s: %v", pattern, err)
		}
		for _, path := range found {
			pages = append(pages, strings.TrimPrefix(path, root+"/"))
		}
	}
	return pages
}

// Read returns a file by its path in the repository.
func Read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// ExpectSection compares a section of a page with what it must be, or writes it with -update. The
// section stands between two comments with its name.
func ExpectSection(t *testing.T, page, name, want string) {
	t.Helper()
	text := Read(t, page)
	begin := regexp.MustCompile(`<!-- ` + regexp.QuoteMeta(name) + `: written by go test [a-z./]+ -update -->\n`).FindString(text)
	end := fmt.Sprintf("<!-- end of %s -->\n", name)
	before, rest, begins := strings.Cut(text, begin)
	got, after, ends := strings.Cut(rest, end)
	if begin == "" || !begins || !ends {
		t.Fatalf("%s has no section between\n<!-- %s: written by go test PACKAGE -update -->\nand\n%s", page, name, end)
	}
	want = "\n" + strings.TrimSpace(want) + "\n\n"
	if *update {
		if err := os.WriteFile(filepath.Join(root, page), []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is not what the code says; run the command that stands there (-want +got):\n%s", page, diff)
	}
}

// Rows are the names in the first column of a section's table, where they stand as code, several
// between commas.
func Rows(t *testing.T, page, section string) map[string]bool {
	t.Helper()
	_, text, found := strings.Cut(Read(t, page), "\n## "+section+"\n")
	if !found {
		t.Fatalf("%s has no section %s", page, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| ((?:`[^`|]+`(?:, )?)+) \\|").FindAllStringSubmatch(text, -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			rows[strings.Trim(name, "`")] = true
		}
	}
	return rows
}
