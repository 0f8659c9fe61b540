package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/manual"
)

// The manual has the exit statuses that the help topic has.
func TestExitStatusesInTheManual(t *testing.T) {
	manual.ExpectSection(t, "docs/operations/reference.md", "exit statuses", exitStatusTable(newCommand()))
}

func TestHelpTopicOfExitStatuses(t *testing.T) {
	code, topic, _ := asWeft(t, "help", exitStatusTopic)
	for _, part := range []string{"    2  it was called wrongly", "    weft doctor  ", "  0  no check failed; there may be warnings\n"} {
		if code != 0 || !strings.Contains(topic, part) {
			t.Errorf("exit status %d, no %q in\n%s", code, part, topic)
		}
	}
	if _, help, _ := asWeft(t, "--help"); !strings.Contains(help, exitStatusTopic) {
		t.Errorf("the help names no topic:\n%s", help)
	}
}

// Every command has a page, with its flags.
func TestManualPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man8")
	if code, _, stderr := asWeft(t, "man", "--dir", dir); code != 0 {
		t.Fatalf("exit status %d, %s", code, stderr)
	}
	for name, part := range map[string]string{"weft.8": "weft-doctor(8)", "weft-peers.8": "\\fB-o\\fP", "weft-ipam-list.8": "List the pods", "weft-exit-status.8": "no check failed"} {
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.HasPrefix(string(page), ".nh\n.TH \"WEFT") || !strings.Contains(string(page), part) {
			t.Errorf("%s: %v, no %q in\n%s", name, err, part, page)
		}
	}
	if code, _, stderr := asWeft(t, "man"); code != 2 || !strings.Contains(stderr, `"dir"`) {
		t.Errorf("without a folder: exit status %d, %s", code, stderr)
	}
	if code, _, _ := asWeft(t, "man", "--dir", "/dev/null/x"); code != 1 {
		t.Errorf("where no folder can be: exit status %d", code)
	}
}
