package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"weft/internal/config"
)

// Each scrape of metrics asks for the warnings: it costs no look at files.
func TestWarningsAreAsLastSeen(t *testing.T) {
	dir := t.TempDir()
	d := newDaemon(config.Config{StateDir: dir, CNI: config.CNI{ConfDir: dir, Name: "weft"}}, slog.New(slog.DiscardHandler), nil)
	file := filepath.Join(dir, "05-old.conf")
	if err := os.WriteFile(file, []byte(`{"cniVersion":"1.0.0","name":"old","type":"bridge"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	expect := func(when string, want ...string) {
		t.Helper()
		if got := codes(d.Warnings()); !slices.Equal(got, want) {
			t.Errorf("%s: warnings %v, want %v", when, got, want)
		}
	}
	expect("before weftd has looked")
	d.look(nil)
	expect("once it has", "cni_network")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	expect("before it looks again", "cni_network")
	d.look(nil)
	expect("after that")
}
