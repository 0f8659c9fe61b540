package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/status"
	"weft/internal/testnet"
	"weft/internal/warning"
)

// write makes the files of a host, and returns its root.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func expect(t *testing.T, found []Finding, result Result, part string) {
	t.Helper()
	if len(found) != 1 || found[0].Result != result || !strings.Contains(found[0].Found, part) {
		t.Errorf("got %+v, want %s with %q", found, result, part)
	}
	if (result == Failed || result == Warning) && found[0].Remedy == "" {
		t.Errorf("%+v has no remedy", found[0])
	}
}

// Each line of an error is a finding of its own, with what follows the first semicolon as remedy.
func TestErrorsBecomeFindings(t *testing.T) {
	got := of(Failed, "a.yaml:1: x: wrong; write y; or z\nb.yaml: unreadable")
	want := []Finding{{Result: Failed, Found: "a.yaml:1: x: wrong", Remedy: "write y; or z"}, {Result: Failed, Found: "b.yaml: unreadable"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A check that hangs holds up no other one, and is a warning.
func TestHangingChecksEnd(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	found := within(t.Context(), time.Millisecond, func(context.Context) []Finding {
		<-hang
		return ok("")
	})
	expect(t, found, Warning, "no answer")
	expect(t, within(t.Context(), testnet.WaitLimit, func(context.Context) []Finding { return ok("well") }), OK, "well")
}

// Without a configuration the checks of the host itself are made, and all others skipped.
func TestChecksWithoutConfiguration(t *testing.T) {
	r := Run(t.Context(), Input{ConfigErr: errors.New("/etc/weft/weft.yaml: tun.mtu: wrong; write 1400"), Root: "/"})
	if r.Result != Failed || r.Findings[0].Code != "config" || r.Findings[0].Remedy != "write 1400" {
		t.Errorf("the first of %s is %+v", r.Result, r.Findings[0])
	}
	for _, f := range r.Findings {
		if i := slices.Index(Codes(), f.Code); i < 0 || (checks[i].needs&configuration != 0) != (f.Found == "the configuration can't be read") {
			t.Errorf("%+v", f)
		}
	}
	if len(r.Findings) < len(checks) {
		t.Errorf("%d findings of %d checks", len(r.Findings), len(checks))
	}
}

// What the running weftd warns of is a finding, before other warnings, and once.
func TestWarningsOfWeftdAreFindings(t *testing.T) {
	h := &host{report: &status.Report{Warnings: []warning.Warning{
		{Code: "udp_gso_lost", Text: "datagrams sent in one message get lost on the way to node2; update the kernel"},
		{Code: "pool_exhausted", Text: "no pod can be added"},
	}}}
	want := []Finding{{Code: "udp_gso_lost", Result: Warning, Found: "datagrams sent in one message get lost on the way to node2", Remedy: "update the kernel"}}
	if diff := cmp.Diff(want, h.warnings()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := new(host).warnings(); len(got) > 0 {
		t.Errorf("without a weftd: %v", got)
	}
}

// A clock that shows an earlier time than files of weftd's have was set back.
func TestClockThatWasSetBack(t *testing.T) {
	h := &host{Input: Input{Root: "/"}}
	h.Config.RunDir, h.Config.StateDir = t.TempDir(), t.TempDir()
	file := filepath.Join(h.Config.StateDir, "nodes.snapshot")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if found := checkClock(t.Context(), h); len(found) != 1 || strings.Contains(found[0].Found, "set back") {
		t.Errorf("a file of now: %+v", found)
	}
	if err := os.Chtimes(file, time.Time{}, time.Now().AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	expect(t, checkClock(t.Context(), h), Warning, file+" was written at")
}

// A few unreachable peers are named, each with the reason and the remedy.
func TestUnreachablePeersAreNamed(t *testing.T) {
	peers := func(states ...string) *host {
		r := &status.Report{}
		for i, s := range states {
			p := status.Peer{Name: fmt.Sprintf("node%d", i+2), Link: &status.Link{State: s}}
			if s == "unreachable" {
				p.Error = "it refuses this node's key; correct its list"
			}
			r.Peers = append(r.Peers, p)
		}
		return &host{report: r}
	}
	expect(t, checkPeers(t.Context(), peers("up", "idle")), OK, "no peer is unreachable, of 2")
	expect(t, checkPeers(t.Context(), peers("up", "unreachable")), Failed, "node3 is unreachable: it refuses this node's key")
	const u = "unreachable"
	if found := checkPeers(t.Context(), peers(u, u, u, u, u)); len(found) != 3 || found[2].Found != "node4 is unreachable: it refuses this node's key (and 2 more peers)" {
		t.Errorf("five: %+v", found)
	}
	expect(t, checkPeers(t.Context(), new(host)), Skipped, "no weftd")

	// With vxlan, probes show it.
	probed := func(p status.Path) *host {
		return &host{report: &status.Report{Peers: []status.Peer{{Name: "node2", Path: &p}}}}
	}
	expect(t, checkPeers(t.Context(), probed(status.Path{})), Skipped, "no peer has answered a probe yet")
	expect(t, checkPeers(t.Context(), probed(status.Path{Answered: time.Now()})), OK, "no peer is unreachable, of 1")
	expect(t, checkPeers(t.Context(), probed(status.Path{Answered: time.Now(), Silent: true})), Failed, "node2 is unreachable: it answered probes before, and does not now")
}

func TestSocketsAtAPort(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  427: 00000000:247A 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18520 2 000000008a3a0f47 0
  981: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 000000008a3a0f47 0
  982: 00000000000000000000000000000000:247A 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18521 2 000000008a3a0f47 0
garbage
`
	if got := socketsAt(strings.NewReader(table), 9338); !slices.Equal(got, []string{"18520", "18521"}) {
		t.Errorf("sockets %v", got)
	}
}

// The runtime's folder is compared with cni.confDir, whichever runtime it is.
func TestFoldersOfContainerRuntimes(t *testing.T) {
	const containerd = "[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/opt/cni/bin\"\n  %s\n"
	for _, tt := range []struct {
		name, file, text string
		result           Result
		part             string
	}{
		{"none", "etc/other", "", OK, "no container runtime is configured"},
		{"containerd", "etc/containerd/config.toml", strings.Replace(containerd, "%s", `conf_dir = "/etc/cni/net.d/"`, 1), OK, "looks for networks in /etc/cni/net.d"},
		{"commented out", "etc/containerd/config.toml", strings.Replace(containerd, "%s", `# conf_dir = "/elsewhere"`, 1), OK, "no container runtime is configured"},
		{"k3s", "var/lib/rancher/k3s/agent/etc/containerd/config.toml", strings.Replace(containerd, "%s", `conf_dir = "/var/lib/rancher/k3s/agent/etc/cni/net.d"`, 1), Warning, "/var/lib/rancher/k3s/agent/etc/cni/net.d"},
		{"CRI-O", "etc/crio/crio.conf.d/10.conf", "[crio.network]\nnetwork_dir = '/etc/cni/crio'\n", Warning, "/etc/cni/crio"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &host{Input: Input{Root: write(t, map[string]string{tt.file: tt.text})}}
			h.Config.CNI.ConfDir = "/etc/cni/net.d"
			expect(t, checkConfDir(t.Context(), h), tt.result, tt.part)
		})
	}
}

func TestSettingsOfNetworkd(t *testing.T) {
	const network, both = "[Network]\n", "ManageForeignRoutes=no\nManageForeignRoutingPolicyRules = false\n"
	for _, tt := range []struct {
		name   string
		files  map[string]string
		result Result
		part   string
	}{
		{"no drop-in", nil, Warning, "(ManageForeignRoutes, ManageForeignRoutingPolicyRules is not no)"},
		{"weft's drop-in", map[string]string{"etc/systemd/networkd.conf.d/80-weft.conf": network + both}, OK, "alone"},
		{"half of it", map[string]string{"etc/systemd/networkd.conf.d/80-weft.conf": network + "ManageForeignRoutes=no\n"}, Warning, "(ManageForeignRoutingPolicyRules is not no)"},
		{"in another section", map[string]string{"etc/systemd/networkd.conf.d/80-weft.conf": "[DHCPv4]\n" + both}, Warning, "ManageForeignRoutes"},
		{"a later drop-in", map[string]string{"usr/lib/systemd/networkd.conf.d/80-weft.conf": network + both, "etc/systemd/networkd.conf.d/90-own.conf": network + "ManageForeignRoutes=yes\n"}, Warning, "(ManageForeignRoutes is not no)"},
		{"a replaced drop-in", map[string]string{"usr/lib/systemd/networkd.conf.d/80-weft.conf": network, "etc/systemd/networkd.conf.d/80-weft.conf": network + both}, OK, "alone"},
		{"the main file", map[string]string{"etc/systemd/networkd.conf": "# a\n\n" + network + both, "usr/lib/systemd/networkd.conf": network}, OK, "alone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := write(t, tt.files)
			h := &host{Input: Input{Root: root}}
			expect(t, checkNetworkd(t.Context(), h), Skipped, "does not run")
			if err := errors.Join(os.MkdirAll(filepath.Join(root, "run/systemd/netif"), 0o755), os.WriteFile(filepath.Join(root, "run/systemd/netif/state"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			expect(t, checkNetworkd(t.Context(), h), tt.result, tt.part)
		})
	}
}

func TestSettingsOfNetworkManager(t *testing.T) {
	shipped, err := os.ReadFile("../../deploy/NetworkManager/90-weft.conf")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{Input: Input{Root: write(t, map[string]string{"etc/NetworkManager/conf.d/10.conf": "[keyfile]\nunmanaged-devices=interface-name:docker0\n"})}}
	expect(t, checkNetworkManager(t.Context(), h), Skipped, "does not run")
	h.Root = write(t, map[string]string{"run/NetworkManager/pid": "", "etc/NetworkManager/conf.d/10.conf": "[keyfile]\nunmanaged-devices=interface-name:docker0\n"})
	expect(t, checkNetworkManager(t.Context(), h), Warning, "may configure")
	h.Root = write(t, map[string]string{"run/NetworkManager/pid": "", "etc/NetworkManager/conf.d/90-weft.conf": string(shipped)})
	expect(t, checkNetworkManager(t.Context(), h), OK, "alone")
}

// What systemctl show prints of the unit in each of its states.
func TestStatesOfTheUnit(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		result     Result
		part       string
	}{
		{"not installed", "LoadState=not-found\nActiveState=inactive\n", Skipped, "no unit"},
		{"broken", "LoadState=bad-setting\n", Failed, "bad-setting"},
		{"refused configuration", "Result=exit-code\nExecMainStatus=2\nLoadState=loaded\nActiveState=failed\n", Failed, "exit status 2"},
		{"killed", "Result=signal\nExecMainStatus=9\nLoadState=loaded\nActiveState=failed\n", Failed, "(signal, exit status 9)"},
		{"stopped", "LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\n", Warning, "stopped"},
		{"not enabled", "LoadState=loaded\nActiveState=active\nUnitFileState=disabled\nNRestarts=0\n", Warning, "next boot"},
		{"restarted", "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=7\n", Warning, "7 times"},
		{"well", "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=0\n", OK, "active and enabled"},
	} {
		t.Run(tt.name, func(t *testing.T) { expect(t, unit(properties(tt.text)), tt.result, tt.part) })
	}
}
