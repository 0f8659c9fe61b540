package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/status"
)

// The shell completes the names of peers that are not given yet, for each command that takes them.
func TestNamesOfPeersAreCompleted(t *testing.T) {
	socket := filepath.Join(t.TempDir(), status.SocketName)
	listener, err := status.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: status.Handler(status.Daemon{Report: healthy}), ReadHeaderTimeout: time.Second}
	go server.Serve(listener) //nolint:errcheck // it ends with Close
	t.Cleanup(func() { server.Close() })

	complete := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := asWeft(t, append([]string{"__complete", "--socket", socket}, args...)...)
		if code != 0 {
			t.Fatalf("exit status %d, %s", code, stderr)
		}
		return stdout
	}
	const node2, other = "node2\t192.168.77.2:9338\n", "a-node-with-a-longer-name\t[fd00:77::3]:9338\n"
	for _, command := range []string{"peers", "probe", "rotate-key"} {
		if got := complete(command, ""); !strings.HasPrefix(got, node2+other+":4\n") {
			t.Errorf("%s: %q", command, got)
		}
		if got := complete(command, "node2", ""); !strings.HasPrefix(got, other+":4\n") {
			t.Errorf("%s node2: %q", command, got)
		}
	}
	if got := complete("status", "-o", ""); !strings.HasPrefix(got, "text\njson\n:4\n") {
		t.Errorf("formats: %q", got)
	}
	server.Close()
	if got := complete("peers", ""); strings.Contains(got, "node2") {
		t.Errorf("without a weftd: %q", got)
	}
	if code, script, _ := asWeft(t, "completion", "bash"); code != 0 || !strings.Contains(script, "__weft") {
		t.Errorf("the script: exit status %d, %d bytes", code, len(script))
	}
}
