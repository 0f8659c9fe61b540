package main

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/nodekey"
)

func TestKeygenPrintsTheFingerprintLast(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node.key")
	code, stdout, stderr := asWeft(t, "keygen", "--out", dir)
	if code != 0 || stderr != "" {
		t.Fatalf("exit status %d, %s", code, stderr)
	}
	key, err := nodekey.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "wrote " + path + "\n" + nodekey.FingerprintOf(key.Public().(ed25519.PublicKey)).String() + "\n"; stdout != want {
		t.Errorf("printed:\n%swant:\n%s", stdout, want)
	}
}

// TestKeygenKeepsAKeyThatIsThere, and prints its fingerprint; what is no key stays too.
func TestKeygenKeepsAKeyThatIsThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node.key")
	_, first, _ := asWeft(t, "keygen", "--out", dir)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := asWeft(t, "keygen", "--out", dir)
	want := strings.Replace(first, "wrote "+path, "kept "+path+", which exists already; to make another key, remove it first", 1)
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit status %d, stderr %q, stdout:\n%swant:\n%s", code, stderr, stdout, want)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the key has changed, %v", err)
	}

	if err := os.WriteFile(path, []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = asWeft(t, "keygen", "--out", dir)
	if code != exitFailure || stdout != "" || !strings.HasPrefix(stderr, "weft: "+path+": holds no key") {
		t.Errorf("exit status %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "no key\n" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}

func TestKeygenSaysWhyItCannotWrite(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "weft")
	for dir, want := range map[string]string{
		missing:     "weft: write the key: there is no folder " + missing + "; make it with: mkdir -p " + missing + "\n",
		"/dev/null": "weft: write the key: open /dev/null/node.key.",
	} {
		code, stdout, stderr := asWeft(t, "keygen", "--out", dir)
		if code != exitFailure || stdout != "" || !strings.HasPrefix(stderr, want) {
			t.Errorf("%s: exit status %d, stdout %q, stderr:\n%swant:\n%s", dir, code, stdout, stderr, want)
		}
	}
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", missing, err)
	}
}

func TestKeygenTakesNoArguments(t *testing.T) {
	dir := t.TempDir()
	code, stdout, stderr := asWeft(t, "keygen", "--out", dir, "node1")
	if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, `weft: unknown command "node1" for "weft keygen"`) {
		t.Errorf("exit status %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v; want nothing", entries, err)
	}
}
