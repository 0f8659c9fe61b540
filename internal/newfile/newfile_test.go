package newfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteMakesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := Write(path, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	expectAlone(t, path)
}

// TestWriteReplacesNothing: neither a file, nor a link, nor a folder.
func TestWriteReplacesNothing(t *testing.T) {
	for name, occupy := range map[string]func(path string) error{
		"file":   func(path string) error { return os.WriteFile(path, []byte("before"), 0o600) },
		"link":   func(path string) error { return os.Symlink("nowhere", path) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		path := filepath.Join(t.TempDir(), "a")
		if err := occupy(path); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(path, []byte("after"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) || now.Size() != before.Size() {
			t.Errorf("%s: it was replaced, %v", name, err)
		}
		expectAlone(t, path)
	}
}

// expectAlone fails if a temporary file is left.
func expectAlone(t *testing.T, path string) {
	t.Helper()
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v; want one file", entries, err)
	}
}
