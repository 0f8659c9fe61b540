package wiring

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/ipam"
)

func TestNamesFollowFromTheAttachmentAlone(t *testing.T) {
	a := ipam.Attachment{ContainerID: "c1", IfName: "eth0"}
	// Pods that a former release attached must be found: this name may never change.
	if want := "weftd72e032fedd"; HostName(a) != want {
		t.Errorf("got %q, want %q", HostName(a), want)
	}
	for _, other := range []ipam.Attachment{{ContainerID: "c1", IfName: "eth1"}, {ContainerID: "c2", IfName: "eth0"}} {
		if HostName(a) == HostName(other) {
			t.Errorf("%s and %s share %s", a, other, HostName(a))
		}
	}
	w := New(ipam.Lease{Attachment: a})
	for _, mac := range []string{w.HostMAC.String(), w.PodMAC.String()} {
		if first := mac[1]; !strings.ContainsRune("26ae", rune(first)) {
			t.Errorf("%s is not a locally administered unicast address", mac)
		}
	}
	if w.HostMAC.String() == w.PodMAC.String() {
		t.Error("both ends have one MAC")
	}
}

func TestAnAliasIsNeverLongerThanTheKernelTakes(t *testing.T) {
	lease := ipam.Lease{
		Attachment: ipam.Attachment{ContainerID: strings.Repeat("c", 200), IfName: "eth0"},
		Pod:        strings.Repeat("n", 63) + "/" + strings.Repeat("p", 253),
	}
	w := New(lease)
	if len(w.alias) != maxAlias || !strings.HasPrefix(w.alias, lease.String()+" n") {
		t.Errorf("%d bytes: %q", len(w.alias), w.alias)
	}
	if a, pod, ok := parseAlias(w.alias); !ok || a != lease.Attachment || !strings.HasPrefix(lease.Pod, pod) {
		t.Errorf("%q is taken for that of %s, pod %s", w.alias, a, pod)
	}
}

// Whatever a pod is called, no link on the host is called that: others on the host match
// links by name.
func TestAltNamesBeginWithWeft(t *testing.T) {
	for _, tt := range []struct{ ifName, pod, want string }{
		{"eth0", "shop/web-0", "weft-web-0.shop"},
		{"net1", "shop/web-0", "weft-net1.web-0.shop"},
		{"eth0", "default/ve-x", "weft-ve-x.default"},
		{"eth0", "default/en-x", "weft-en-x.default"},
		{"eth0", "n/" + strings.Repeat("p", 253), "weft-" + strings.Repeat("p", maxAltName-5)},
		{"eth0", "", ""},
	} {
		w := New(ipam.Lease{Attachment: ipam.Attachment{ContainerID: "c", IfName: tt.ifName}, Pod: tt.pod})
		if w.altName != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.ifName, tt.pod, w.altName, tt.want)
		}
	}
}

// fakeProc is a tree of settings, of which only those given exist.
func fakeProc(t *testing.T, values map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, value := range values {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Settings out of reach fail only where connectivity depends on them.
func TestSettingsOutOfReach(t *testing.T) {
	tests := []struct {
		name   string
		values map[string]string
		s      setting
		fails  bool
	}{
		{"writable", map[string]string{"a": "0\n"}, setting{"a", "1", true}, false},
		{"needed, absent", nil, setting{"a", "1", true}, true},
		{"not needed, absent", nil, setting{"a", "1", false}, false},
		{"needed, read-only", map[string]string{"a": "0\n"}, setting{"a", "1", true}, true},
		{"needed, read-only, right already", map[string]string{"a": "1\n"}, setting{"a", "1", true}, false},
		{"not needed, read-only", map[string]string{"a": "0\n"}, setting{"a", "1", false}, false},
		{"not needed, another error", map[string]string{"a/b": ""}, setting{"a", "1", false}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := fakeProc(t, tt.values)
			if strings.Contains(tt.name, "absent") || strings.Contains(tt.name, "read-only") {
				// Root writes where it likes, except on a file system mounted read-only.
				if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
					t.Fatalf("bind mount (run as root): %v", err)
				}
				t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
				if err := unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
					t.Fatal(err)
				}
			}
			if err := apply(root, []setting{tt.s}); (err != nil) != tt.fails {
				t.Errorf("got %v, want an error: %t", err, tt.fails)
			}
		})
	}
}

func TestANodeWithoutIPv6TakesIPv4Pods(t *testing.T) {
	host := (&Wiring{HostName: "weft0123456789a", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}).hostSettings()
	for _, s := range host {
		if s.needed && strings.HasPrefix(s.name, "ipv6") {
			t.Errorf("%s is needed", s.name)
		}
	}
}
