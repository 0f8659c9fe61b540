package cniplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"weft/ipam"
)

func TestNamesFollowFromTheAttachmentAlone(t *testing.T) {
	a := ipam.Attachment{ContainerID: "c1", IfName: "eth0"}
	// Pods that a former release attached must be found: this name may never change.
	if want := "weftd72e032fedd"; hostName(a) != want {
		t.Errorf("got %q, want %q", hostName(a), want)
	}
	for _, other := range []ipam.Attachment{{ContainerID: "c1", IfName: "eth1"}, {ContainerID: "c2", IfName: "eth0"}} {
		if hostName(a) == hostName(other) {
			t.Errorf("%s and %s share %s", a, other, hostName(a))
		}
	}
	w := newWiring(&request{attachment: a}, nil)
	for _, mac := range []string{w.hostMAC.String(), w.podMAC.String()} {
		if first := mac[1]; !strings.ContainsRune("26ae", rune(first)) {
			t.Errorf("%s is not a locally administered unicast address", mac)
		}
	}
	if w.hostMAC.String() == w.podMAC.String() {
		t.Error("both ends have one MAC")
	}
}

func TestAnAliasIsNeverLongerThanTheKernelTakes(t *testing.T) {
	req := &request{
		attachment: ipam.Attachment{ContainerID: strings.Repeat("c", maxContainerID), IfName: "eth0"},
		pod:        strings.Repeat("n", 63) + "/" + strings.Repeat("p", 253),
	}
	w := newWiring(req, nil)
	if len(w.alias) != maxAlias || !strings.HasPrefix(w.alias, req.attachment.String()+" n") {
		t.Errorf("%d bytes: %q", len(w.alias), w.alias)
	}
}

func TestThePodsNameIsReadFromCNIArgs(t *testing.T) {
	tests := map[string]string{
		"":                                     "",
		"IgnoreUnknown=1":                      "",
		"K8S_POD_NAME=p":                       "",
		"K8S_POD_NAMESPACE=n;K8S_POD_NAME=p":   "n/p",
		"K8S_POD_NAME=p;X;K8S_POD_NAMESPACE=n": "n/p",
	}
	for args, want := range tests {
		if got := podOf(parseArgs(args)); got != want {
			t.Errorf("%q: got %q, want %q", args, got, want)
		}
	}
}

func TestAttachmentsThatCannotExistAreRefused(t *testing.T) {
	tests := []struct {
		containerID, ifName string
		valid               bool
	}{
		{"c1", "eth0", true},
		{strings.Repeat("c", maxContainerID), "a-15-byte-name.", true},
		{"", "eth0", false},
		{"../c1", "eth0", false},
		{"c1/..", "eth0", false},
		{strings.Repeat("c", maxContainerID+1), "eth0", false},
		{"c1", "", false},
		{"c1", "..", false},
		{"c1", "eth/0", false},
		{"c1", "a-16-byte-name..", false},
		{"c1", "eth%d", false},
		{"c1", "lo", false},
		{"c1", "all", false},
		{"c1", "default", false},
	}
	for _, tt := range tests {
		if err := validateAttachment(tt.containerID, tt.ifName); (err == nil) != tt.valid {
			t.Errorf("%q, %q: got %v, want valid: %t", tt.containerID, tt.ifName, err, tt.valid)
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

func TestSettingsOutOfReachFailOnlyWhereConnectivityDependsOnThem(t *testing.T) {
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
	host := (&wiring{hostName: "weft0123456789a", addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}).hostSettings()
	for _, s := range host {
		if s.needed && strings.HasPrefix(s.name, "ipv6") {
			t.Errorf("%s is needed", s.name)
		}
	}
}

func TestErrorsCarryTheCodesOfTheSpecification(t *testing.T) {
	tests := []struct {
		err  error
		want uint
	}{
		{ipam.ErrLocked, types.ErrTryAgainLater},
		{ipam.ErrExhausted, types.ErrTryAgainLater},
		{ipam.ErrCorrupt, CodeCorrupt},
		{&os.PathError{Op: "write", Err: unix.ENOSPC}, types.ErrIOFailure},
		{&os.LinkError{Op: "rename", Err: unix.EROFS}, types.ErrIOFailure},
		{unix.EIO, types.ErrIOFailure},
		{errors.New("anything"), types.ErrInternal},
		{withCode(CodeWiring, unix.EIO), CodeWiring},
	}
	for _, tt := range tests {
		err := cniError(fmt.Errorf("context: %w", tt.err))
		requireCode(t, err, tt.want)
		if !strings.HasPrefix(err.Error(), "context: ") {
			t.Errorf("%q lost its context", err)
		}
	}
	if cniError(nil) != nil || withCode(CodeWiring, nil) != nil {
		t.Error("no error became one")
	}
	if !errors.Is(withCode(CodeWiring, unix.EIO), unix.EIO) {
		t.Error("the cause is lost")
	}
}
