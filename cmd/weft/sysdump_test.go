package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The archive is its owner's, and nothing is overwritten.
func TestSysdumpWritesOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump.tar.gz")
	args := []string{"sysdump", "--output", path, "--config", filepath.Join(filepath.Dir(path), "absent.yaml")}
	code, stdout, stderr := asWeft(t, args...)
	info, err := os.Stat(path)
	if code != 0 || stdout != path+"\n" || err != nil || info.Mode() != 0o600 || info.Size() == 0 || !strings.Contains(stderr, "collecting network") || !strings.Contains(stderr, "manifest.json") {
		t.Fatalf("exit status %d, %q, %v, %s", code, stdout, err, stderr)
	}
	if code, _, stderr := asWeft(t, args...); code != 1 || !strings.Contains(stderr, path+" exists already; name another file with --output") {
		t.Errorf("again: exit status %d, %s", code, stderr)
	}
	if code, _, stderr := asWeft(t, "sysdump", "--output", "/dev/null/x"); code != 1 || !strings.Contains(stderr, "make the archive") {
		t.Errorf("where none can be: exit status %d, %s", code, stderr)
	}
}
