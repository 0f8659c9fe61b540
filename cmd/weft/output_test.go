package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
)

// Nothing in a document controls a terminal, and a program reads what was written.
func TestJSONControlsNoTerminal(t *testing.T) {
	want := map[string]string{"a": "\x1b[2J\u009b2J\x7f\u202e\U000e0001 ü €\n"}
	for _, indent := range []string{"", "  "} {
		var out strings.Builder
		if err := writeJSON(&out, want, indent); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%q has %U", out.String(), r)
			}
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got["a"] != want["a"] {
			t.Errorf("%q is read as %q, %v", out.String(), got, err)
		}
		if lines := strings.Count(out.String(), "\n"); indent == "" && lines != 1 {
			t.Errorf("%d lines: %q", lines, out.String())
		}
	}
}

// Packets of pods are for the user who captures them, also where the file was there before.
func TestCapturesAreTheirOwners(t *testing.T) {
	for _, mode := range []os.FileMode{0, 0o644} {
		path := filepath.Join(t.TempDir(), "capture.pcapng")
		if mode != 0 {
			if err := os.WriteFile(path, []byte("before"), mode); err != nil {
				t.Fatal(err)
			}
		}
		f, err := openCapture(&cobra.Command{}, path)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 || info.Size() != 0 {
			t.Errorf("mode %v, %d bytes, %v", info.Mode(), info.Size(), err)
		}
	}
	if f, err := openCapture(&cobra.Command{}, os.DevNull); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}
