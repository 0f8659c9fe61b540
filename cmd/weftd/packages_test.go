//go:build packages

package main_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"weft/internal/nodekey"
	"weft/internal/testnet"
)

// setting returns what make test-packages has put into the environment.
func setting(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatal(name + " is not set; run make test-packages")
	}
	return value
}

// packageFile is the package for this machine.
func packageFile(t *testing.T, pattern string) string {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(setting(t, "PACKAGES"), fmt.Sprintf(pattern, runtime.GOARCH)))
	if len(files) != 1 {
		t.Fatalf("%d files are %s; remove all but the one to test", len(files), fmt.Sprintf(pattern, runtime.GOARCH))
	}
	return files[0]
}

// newRoot is the root of a Debian system. systemd starts nothing in it by itself, and logs nothing.
func newRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	command(t, "tar", "--extract", "--file", setting(t, "PACKAGE_ROOT"), "--directory", root)
	command(t, "mknod", filepath.Join(root, "dev/null"), "c", "1", "3") // for what is only run in the root
	units := filepath.Join(root, "etc/systemd/system")
	for _, target := range []string{"sysinit.target", "basic.target", "shutdown.target"} {
		if err := os.WriteFile(filepath.Join(units, target), []byte("[Unit]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// contents lists what is in a root: kinds, modes, owners, and checksums of files. What the system itself
// keeps of packages, logs and caches is left out, as are folders that other packages of Fedora have.
func contents(t *testing.T, root string) string {
	t.Helper()
	return command(t, "sh", "-ec", `cd "$1"
		find . -xdev \( -path ./var/lib/dpkg -o -path ./root/.rpmdb -o -path ./var/log -o -path ./var/cache -o -path './tmp/*' \) -prune -o \
			-type d \( -path './usr/lib/NetworkManager*' -o -path './usr/lib/firewalld*' -o -path './usr/share/fish*' \
				-o -path './usr/share/zsh*' -o -path ./usr/lib/systemd/networkd.conf.d \) -o \
			-printf '%P %y %m %u %g %l\n' -type f -exec sha256sum {} + | sort`, "contents", root)
}

// inSystem runs a program in the system, which must succeed.
func (s *service) inSystem(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.inside(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s\n%s", strings.Join(args, " "), err, out, s.node.LogTail(20))
	}
	return out
}

// TestPackageOnANode installs the package on a node that systemd runs, upgrades it while packets pass,
// and removes it.
func TestPackageOnANode(t *testing.T) {
	deb := packageFile(t, "weft_*_%s.deb")
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	bare := network(t, node1.Namespace)
	root := newRoot(t)
	command(t, "cp", deb, filepath.Join(root, "var/cache/weft.deb"))
	before := contents(t, root)
	s := startSystemdIn(t, node1, "boot", root)

	// An installation makes the key, and starts nothing.
	installed := s.inSystem(t, "dpkg", "--install", "/var/cache/weft.deb")
	if state, _ := s.control("is-active", "weftd"); state != "inactive" {
		t.Errorf("after the installation weftd is %s", state)
	}
	if state, _ := s.control("is-enabled", "weftd"); state != "disabled" {
		t.Errorf("after the installation weftd is %s", state)
	}
	expectSame(t, "the network", bare, network(t, node1.Namespace))
	key, err := nodekey.Load(filepath.Join(root, "etc/weft", nodekey.FileName))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := nodekey.FingerprintOf(key.Public().(ed25519.PublicKey)).String()
	if !strings.Contains(installed, fingerprint) {
		t.Errorf("the fingerprint is %s, but the installation says:\n%s", fingerprint, installed)
	}
	// Without a configuration it doesn't start, and says why.
	if out, err := s.control("start", "weftd"); err == nil {
		t.Errorf("weftd starts without a configuration: %s", out)
	}

	// The folders of a node under test are not those of a host; the key is the package's.
	command(t, "cp", filepath.Join(root, "etc/weft", nodekey.FileName), node1.KeyFile())
	var nodes []testnet.NodeEntry
	for _, n := range cluster.Nodes() {
		entry := n.Entry()
		if n == node1 {
			entry.Key = fingerprint
		}
		nodes = append(nodes, entry)
	}
	dropIn := filepath.Join(root, "etc/systemd/system/weftd.service.d/test.conf")
	if err := errors.Join(node1.SetNodes(nodes), node2.SetNodes(nodes), os.MkdirAll(filepath.Dir(dropIn), 0o755),
		os.WriteFile(dropIn, fmt.Appendf(nil, "[Service]\nBindPaths=%s\nStandardOutput=append:%s\nStandardError=inherit\n", node1.Dir(), node1.LogFile()), 0o600),
		os.Symlink(configFile(node1), filepath.Join(root, "etc/weft/weft.yaml"))); err != nil {
		t.Fatal(err)
	}
	s.inSystem(t, "weftd", "--check")
	s.systemctl(t, "daemon-reload")
	s.systemctl(t, "enable", "--now", "weftd")
	if err := node2.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	main := s.newMain(t, "")
	pod1, pod2 := addPod(t, node1, "a"), addPod(t, node2, "b")
	tr := startTraffic(t, pod1, pod2)
	n := 0
	for ; tr.passes() || n < 2; n++ {
		s.inSystem(t, "dpkg", "--install", "/var/cache/weft.deb")
		main = s.newMain(t, main)
	}
	t.Logf("%d upgrades", n)
	s.systemctl(t, "kill", "--kill-who=main", "--signal=USR2", "weftd") // the unit names weftd without a path
	main = s.newMain(t, main)
	tr.expectNoLoss(t)

	// A version that can't start here doesn't end the one before.
	valid := read(t, configFile(node1))
	if err := os.WriteFile(configFile(node1), []byte("nodeName: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.inSystem(t, "dpkg", "--install", "/var/cache/weft.deb"); !strings.Contains(out, "goes on") {
		t.Errorf("an upgrade with an invalid configuration says:\n%s", out)
	}
	if err := os.WriteFile(configFile(node1), []byte(valid), 0o600); err != nil {
		t.Fatal(err)
	}
	if now := s.property(t, "MainPID"); now != main {
		t.Errorf("weftd was restarted with an invalid configuration: process %s, not %s", now, main)
	}

	// While a pod runs, the package stays, and weftd goes on.
	if out, err := s.inside("dpkg", "--remove", "weft"); err == nil || !strings.Contains(out, "1 pod still on this node") {
		t.Errorf("the package is removed while a pod runs: %v\n%s", err, out)
	}
	if now := s.property(t, "MainPID"); now != main {
		t.Errorf("weftd is process %s after the refusal, not %s", now, main)
	}
	expectPings(t, pod1, pod2)
	if err := node1.DeletePod(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	s.inSystem(t, "dpkg", "--remove", "weft")
	expectSame(t, "the network", bare, network(t, node1.Namespace))
	if _, err := os.Stat(filepath.Join(root, "etc/weft", nodekey.FileName)); err != nil {
		t.Error("the key is gone:", err)
	}
	s.inSystem(t, "dpkg", "--purge", "weft")
	if err := os.RemoveAll(filepath.Dir(dropIn)); err != nil {
		t.Fatal(err)
	}
	expectSame(t, "the system", before, contents(t, root))
}

// TestPackageInAnImage: where no systemd runs, as while an image is built, there is no key that the
// image's machines would share, and nothing fails.
func TestPackageInAnImage(t *testing.T) {
	for _, tt := range []struct {
		name, file                string
		install, upgrade, removes []string
	}{
		{"deb", packageFile(t, "weft_*_%s.deb"), []string{"chroot", "ROOT", "dpkg", "--install", "/var/cache/package"}, []string{"chroot", "ROOT", "dpkg", "--install", "/var/cache/package"}, []string{"chroot", "ROOT", "dpkg", "--purge", "weft"}},
		{"rpm", rpmFile(t), []string{"rpm", "--root", "ROOT", "--nodeps", "--install", "FILE"}, []string{"rpm", "--root", "ROOT", "--nodeps", "--upgrade", "--force", "FILE"}, []string{"rpm", "--root", "ROOT", "--erase", "weft"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := newRoot(t)
			command(t, "cp", tt.file, filepath.Join(root, "var/cache/package"))
			before := contents(t, root)
			for _, step := range [][]string{tt.install, tt.upgrade, tt.removes} {
				words := strings.Fields(strings.NewReplacer("ROOT", root, "FILE", tt.file).Replace(strings.Join(step, " ")))
				command(t, words[0], words[1:]...)
				if _, err := os.Stat(filepath.Join(root, "etc/weft", nodekey.FileName)); err == nil {
					t.Errorf("%s made a key", strings.Join(step, " "))
				}
			}
			expectSame(t, "the system", before, contents(t, root))
		})
	}
}

func rpmFile(t *testing.T) string {
	t.Helper()
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	files, _ := filepath.Glob(filepath.Join(setting(t, "PACKAGES"), "weft-*."+arch+".rpm"))
	if len(files) != 1 {
		t.Fatalf("%d files are RPM packages for %s; remove all but the one to test", len(files), arch)
	}
	return files[0]
}

// TestPackageIsLintian: of Debian's rules the package breaks none that lintian calls an error.
func TestPackageIsLintian(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "lintian", "--tag-display-limit", "0", "--fail-on", "error,warning", packageFile(t, "weft_*_%s.deb")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
