package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInstallCNI replaces weft-cni, and brings what is missing, and touches nothing else.
func TestInstallCNI(t *testing.T) {
	image, plugins, node := t.TempDir(), t.TempDir(), t.TempDir()
	write := func(dir, name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(image, "weft-cni", "new")
	write(plugins, "loopback", "ours")
	write(plugins, "portmap", "ours")
	write(node, "weft-cni", "old")
	write(node, "portmap", "the node's")
	old, err := os.Open(filepath.Join(node, "weft-cni")) // as one that runs
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	flags := []string{"install-cni", "--from", filepath.Join(image, "weft-cni"), "--to", node, "--missing-from", plugins}
	code, stdout, stderr := asWeft(t, flags...)
	if want := "installed " + node + "/weft-cni\ninstalled " + node + "/loopback\n"; code != 0 || stdout != want {
		t.Errorf("exit status %d: %s%s", code, stdout, stderr)
	}
	got := map[string]string{}
	for _, name := range []string{"weft-cni", "loopback", "portmap"} {
		content, err := os.ReadFile(filepath.Join(node, name))
		info, statErr := os.Stat(filepath.Join(node, name))
		if err != nil || statErr != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v, %v", name, err, statErr, info)
		}
		got[name] = string(content)
	}
	if diff := cmp.Diff(map[string]string{"weft-cni": "new", "loopback": "ours", "portmap": "the node's"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	running := make([]byte, 3)
	if _, err := old.Read(running); err != nil || string(running) != "old" {
		t.Errorf("the one that runs has become %q, %v", running, err)
	}
	for _, wrong := range [][]string{{"--from", image + "/none"}, {"--to", node + "/none"}, {"--missing-from", plugins + "/none"}} {
		if code, _, stderr := asWeft(t, append(flags, wrong...)...); code != exitFailure || stderr == "" {
			t.Errorf("%v: exit status %d, %s", wrong, code, stderr)
		}
	}
}
