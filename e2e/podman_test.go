package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// podman is podman in a machine. Its settings are in a file, and what it mounts is in a namespace.
type podman struct {
	*machine
	settings, mounts string
}

// newPodman is podman with one of its network backends, as an operator would set it up but for folders.
// Containers get no cgroups, because those of the tests' machine are not podman's to change; it must find
// none but those of version 2.
func newPodman(t *testing.T, m *machine, backend string) podman {
	t.Helper()
	file := func(name string) string { return filepath.Join(m.Dir(), "podman-"+backend+name) }
	p := podman{m, file(".conf"), holdMounts(t, m, file(".pid"))}
	settings := fmt.Sprintf(`
[network]
network_backend = %q
network_config_dir = %q
cni_plugin_dirs = [%q]
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`, backend, m.ConfDir(), binDir)
	if err := os.WriteFile(p.settings, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := file(".tar")
	if err := testnet.WriteImage(archive); err != nil {
		t.Fatal(err)
	}
	p.must(t, "load", "--quiet", "--input", archive)
	return p
}

// holdMounts makes a mount namespace in a machine, in which there are no cgroups but those of version 2,
// and returns its file there. It ends with the test.
func holdMounts(t *testing.T, m *machine, pidFile string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	hold := m.Inside(ctx, "unshare", "--mount", "sh", "-ec", `umount --recursive /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
echo $$ >"$0.new"
mv "$0.new" "$0"
exec sleep infinity`, pidFile)
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = hold.Wait() // it was killed
	})
	var pid []byte
	eventually(t, "the mount namespace for podman", func(context.Context) (err error) {
		pid, err = os.ReadFile(pidFile)
		return err
	})
	return "/proc/" + strings.TrimSpace(string(pid)) + "/ns/mnt"
}

func (p podman) run(ctx context.Context, args ...string) (string, error) {
	return p.runWith(ctx, []string{"CONTAINERS_CONF=" + p.settings}, "nsenter", append([]string{"--mount=" + p.mounts, "podman", "--storage-driver", "vfs"}, args...)...)
}

func (p podman) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// TestPodmanContainersAreOnWeftsNetwork: with the backend cni podman finds the conflist by itself. The
// container is reached from other nodes, by its addresses and by a port of its host.
func TestPodmanContainersAreOnWeftsNetwork(t *testing.T) {
	begin(t)
	p := newPodman(t, node1, "cni")
	if networks := p.must(t, "network", "ls", "--format", "{{.Name}} {{.Driver}}"); !strings.Contains(networks, "weft weft-cni") {
		t.Errorf("podman network ls:\n%s", networks)
	}
	p.must(t, "run", "--detach", "--name", "web", "--hostname", "pod", "--network", "weft", "--publish", "8080:80", "--entrypoint", "", testnet.Image, "httpd", "-f", "-p", "80", "-h", "/www")
	t.Cleanup(func() {
		if _, err := p.run(context.WithoutCancel(t.Context()), "rm", "--force", "--time", "0", "web"); err != nil {
			t.Error(err)
		}
	})
	var addrs []netip.Addr
	for _, field := range []string{"IPAddress", "GlobalIPv6Address"} {
		addr, err := netip.ParseAddr(p.must(t, "inspect", "web", "--format", "{{.NetworkSettings.Networks.weft."+field+"}}"))
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, addr)
	}
	expectReached(t, node2, "podman's container", addrs)
	overlay := []netip.Addr{netip.MustParseAddr("10.244.2.1"), netip.MustParseAddr("fd00:244:2::1")}
	for family, addr := range addrs {
		expectAnswer(t, "from the other node", outsider{node2.Namespace}, netip.AddrPortFrom(addr, 80), answer{"pod", overlay[family]})
	}
	expectAnswer(t, "a published port", outsider{cluster.Outside}, netip.AddrPortFrom(underlay(1)[0], 8080), answer{"pod", testnet.OutsideUnderlay4})
}

// TestNetavarkKnowsNoCNI: podman's other backend does not see weft's network, as the manual says.
func TestNetavarkKnowsNoCNI(t *testing.T) {
	begin(t)
	p := newPodman(t, alone, "netavark")
	if out, err := p.run(t.Context(), "run", "--rm", "--network", "weft", testnet.Image, "ip", "addr"); err == nil || !strings.Contains(err.Error(), "network not found") {
		t.Errorf("%s, %v", out, err)
	}
}
