package hostnet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An nft that hangs is an error that is reported, and not the end of all changes.
func TestNFTThatHangs(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n[ -e %s/hangs ] && [ \"$1\" = -f ] && exec sleep 600\nexec %s \"$@\"\n", dir, nft)
	if err := os.WriteFile(filepath.Join(dir, "nft"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	limit := nftLimit
	defer func() { nftLimit = limit }()
	hangs := filepath.Join(dir, "hangs")
	if err := os.WriteFile(hangs, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ns, host := newNamespace(t), newHost()
	ns.do(t, func() {
		nftLimit = time.Second
		if err := host.Protect(t.Context(), testNetwork()); err == nil || !strings.Contains(err.Error(), "nft has not ended for 1s; look for what holds it up") {
			t.Errorf("while nft hangs: %v", err)
		}
		nftLimit = limit
		if err := os.Remove(hangs); err != nil {
			t.Error(err)
		}
		if err := host.Protect(t.Context(), testNetwork()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
