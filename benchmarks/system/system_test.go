package system

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// built says where the programs are.
var built Programs

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weft-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = Programs{Weft: dir, Before: dir, WireGuard: filepath.Join(dir, "wireguard"),
		Nebula: filepath.Join(dir, "nebula"), NebulaCert: filepath.Join(dir, "nebula-cert"), Floor: filepath.Join(dir, "floor")}
	for _, b := range []struct {
		folder, command string
	}{
		{"../..", "go build -o " + dir + "/ weft/cmd/weftd weft/cmd/weft-cni"}, // of another module
		{".", "go build -o " + dir + "/ golang.zx2c4.com/wireguard"},
		{"../nebula", "go build -o " + dir + "/ tool"},
		{"../floor", "cc -O2 -Wall -Werror -pthread -o " + built.Floor + " floor.c"},
	} {
		words := strings.Fields(b.command)
		build := exec.Command(words[0], words[1:]...)
		build.Dir = b.folder
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTOOLCHAIN=auto") // Nebula's is newer
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", b.command, err, out)
			return 1
		}
	}
	return m.Run()
}

// startSystem starts the system of this name, which lives as long as the test.
func startSystem(t *testing.T, name string, offloads testnet.Offloads) *Path {
	t.Helper()
	for _, s := range slices.Concat(All(), Before()) {
		if s.Name != name {
			continue
		}
		path, err := s.Start(context.WithoutCancel(t.Context()), built, offloads)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := path.Stop(); err != nil {
				t.Error(err)
			}
			left, err := path.net.Leftovers(context.Background())
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
		return path
	}
	t.Fatalf("no system %s", name)
	return nil
}

func TestEverySystemConnectsPodsAndIsVerified(t *testing.T) {
	for _, s := range slices.Concat(All(), Before()) {
		t.Run(s.Name, func(t *testing.T) {
			path := startSystem(t, s.Name, testnet.NoTunnel)
			if err := path.Crashed(); err != nil {
				t.Error(err)
			}
			counters, err := path.Counters(t.Context())
			if err != nil || counters[DevicePackets[0]] == 0 || counters[UnderlayPackets] == 0 {
				t.Errorf("got %v, %v", counters, err)
			}
			if path.Features[0]["tx-udp_tnl-segmentation"] || !path.Features[1]["tx-udp-segmentation"] {
				t.Errorf("the wire has %v", path.Features)
			}
		})
	}
}

func TestVerifyNoticesThatAPathIsNotWhatItClaims(t *testing.T) {
	for name, tt := range map[string]struct {
		system string
		spoil  []string // run in node 1
		want   string
	}{
		"other offloads":     {"direct", []string{"ethtool -K eth0 tso off"}, "have changed"},
		"no way through":     {"direct", []string{"ip route del 10.244.2.0/24"}, "ping"},
		"past the overlay":   {"kernel-vxlan", []string{"ip route replace 10.244.2.0/24 via 192.168.77.2"}, "only 0 packets left"},
		"a small MTU beyond": {"kernel-vxlan", []string{"ip link set vxlan1 mtu 1400"}, "ping"},
		"GRO no longer on":   {"kernel-vxlan/gro", []string{"ethtool -K pod gro off"}, "generic-receive-offload of pod"},
	} {
		t.Run(name, func(t *testing.T) {
			path := startSystem(t, tt.system, testnet.Full)
			if err := path.Nodes[0].ExecAll(t.Context(), tt.spoil...); err != nil {
				t.Fatal(err)
			}
			if err := path.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWeftIsAskedWhatItRuns(t *testing.T) {
	path := startSystem(t, WeftVXLAN("water"), testnet.Full)
	nodes := path.net.Nodes()
	other := weft{sealed: true, driver: "wireguard"}
	err := other.verify(t.Context(), [2]*testnet.Node{nodes[0], nodes[1]}, Counters{})
	for _, want := range []string{"runs vxlan with the driver water", "want sealed, wireguard", "does not rise"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
