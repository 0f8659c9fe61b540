package architecture

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The plugin is started for every pod, and copied to every node.
func TestTheCNIPluginStaysSmall(t *testing.T) {
	const most = 12 << 20
	for _, arch := range []string{"amd64", "arm64"} {
		path := filepath.Join(t.TempDir(), "weft-cni")
		build := exec.Command("go", "build", "-o", path, "weft/cmd/weft-cni")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build for %s: %v\n%s", arch, err, out)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > most {
			t.Errorf("weft-cni for %s has %d bytes, more than %d", arch, info.Size(), most)
		}
	}
}
