package manual

import (
	"regexp"
	"strings"
	"testing"
)

var (
	headings = regexp.MustCompile("(?m)^#+ (.*)$")

	// block matches a block of code, with the comment that says why no test runs it, if there is one.
	block = regexp.MustCompile("(?ms)(?:^<!-- not run: ([^\n]+) -->\n)?^```([a-z]*)\n(.*?)^```$")
)

// Anchors are the sections of a page, as links name them. Two sections of one name fail the test: a
// link could mean either.
func Anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	anchors := map[string]bool{}
	for _, heading := range headings.FindAllStringSubmatch(block.ReplaceAllString(Read(t, page), ""), -1) {
		name := anchor(heading[1])
		if anchors[name] {
			t.Errorf("%s has two headings #%s", page, name)
		}
		anchors[name] = true
	}
	return anchors
}

// anchor is GitHub's for a heading.
func anchor(heading string) string {
	plain := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(plain, " ", "-")
}

// Links are the targets of a page's links and pictures, without those to other sites.
func Links(t *testing.T, page string) (targets []string) {
	t.Helper()
	prose := regexp.MustCompile("`[^`]*`").ReplaceAllString(block.ReplaceAllString(Read(t, page), ""), "")
	for _, link := range regexp.MustCompile(`(?:\]\(|src="|srcset=")([^)"\s]+)`).FindAllStringSubmatch(prose, -1) {
		if !strings.Contains(link[1], "://") {
			targets = append(targets, link[1])
		}
	}
	return targets
}
