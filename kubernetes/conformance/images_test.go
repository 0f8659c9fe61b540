package main

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// What is added first stays, so that complete programs come before busybox's, and every name comes
// after its folder.
func TestFileSystem(t *testing.T) {
	complete, other := filepath.Join(t.TempDir(), "nc"), filepath.Join(t.TempDir(), "nc")
	for file, content := range map[string]string{complete: "complete", other: "other"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := newFileSystem()
	for _, file := range []string{complete, other} {
		if err := f.addFile("/bin/nc", file); err != nil {
			t.Fatal(err)
		}
	}
	f.addLink("/bin/nc", "busybox")
	if err := f.addFile("/lib/x86_64/libc.so", other); err != nil {
		t.Fatal(err)
	}
	contents := readArchive(t, f)
	if contents["/bin/nc"] != "complete" || contents["/lib/x86_64/libc.so"] != "other" {
		t.Errorf("the files are %v", contents)
	}
}

// readArchive returns the contents of the files, and fails where a file comes before its folder or twice.
func readArchive(t *testing.T, f *fileSystem) map[string]string {
	t.Helper()
	archive, err := f.open()
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	seen, contents := map[string]bool{"/": true}, make(map[string]string)
	for reader := tar.NewReader(archive); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return contents
		}
		if err != nil {
			t.Fatal(err)
		}
		if seen[h.Name] || !seen[filepath.Dir(h.Name)] {
			t.Errorf("%s is there twice, or before its folder", h.Name)
		}
		seen[h.Name] = true
		if h.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(reader)
			if err != nil {
				t.Fatal(err)
			}
			contents[h.Name] = string(content)
		}
	}
}
