package manual

import (
	"regexp"
	"strings"
	"testing"
)

// Commands are a block of commands on a page.
type Commands struct {
	Page    string
	Line    int    // of the first command
	Section string // as a link names it
	Text    string

	// NotRun is the reason why no test can run them.
	NotRun string

	// Output is what the page shows of their output: the block of language text that follows at once.
	Output string
}

var indented = regexp.MustCompile("(?m)^[ \t]+```")

// CommandsOf returns the blocks of a page whose language is sh, in order. A block that could hold
// commands and is not recognized fails the test.
func CommandsOf(t *testing.T, page string) (all []Commands) {
	t.Helper()
	text := Read(t, page)
	if indented.MatchString(text) {
		t.Errorf("%s has an indented block; begin it at the margin", page)
	}
	end := 0 // of the block before
	for _, at := range block.FindAllStringSubmatchIndex(text, -1) {
		part := func(n int) string {
			if at[2*n] < 0 {
				return ""
			}
			return text[at[2*n]:at[2*n+1]]
		}
		line := strings.Count(text[:at[6]], "\n") + 1
		switch language := part(2); language {
		case "sh":
			section := ""
			if before := headings.FindAllStringSubmatch(block.ReplaceAllString(text[:at[0]], ""), -1); before != nil {
				section = anchor(before[len(before)-1][1])
			}
			all = append(all, Commands{Page: page, Line: line, Section: section, Text: part(3), NotRun: part(1)})
		case "text":
			if between := text[end:at[0]]; len(all) > 0 && between == "\n\n" {
				all[len(all)-1].Output = part(3)
			}
		case "yaml":
		default:
			t.Errorf("%s:%d: a block of language %q; write sh for commands, text for output, or yaml", page, line, language)
		}
		end = at[1]
	}
	return all
}
