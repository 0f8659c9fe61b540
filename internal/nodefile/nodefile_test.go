package nodefile_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/nodefile"
)

var node = nodefile.Node{
	Name:      "node1",
	PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")},
	Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00:244:1::1")},
	TUN:       "weft0",
	MTU:       1450,

	GSOMaxSize: 61000,
	GSOMaxSegs: 64,
}

func diff(a, b nodefile.Node) string {
	return cmp.Diff(a, b, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}))
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := t.TempDir()
	other := node
	other.MTU, other.PodCIDRs = 1430, other.PodCIDRs[:1]
	for _, want := range []nodefile.Node{node, other, {}} {
		if err := nodefile.Write(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := nodefile.Read(dir)
		if d := diff(want, got); d != "" || err != nil {
			t.Errorf("%v, (-want +got):\n%s", err, d)
		}
	}
	info, err := os.Stat(filepath.Join(dir, nodefile.Name))
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v; want 0644", info.Mode(), err)
	}
}

func TestAbsentAndBrokenDescriptionsDiffer(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		if _, err := nodefile.Read(dir); !errors.Is(err, nodefile.ErrAbsent) || !strings.Contains(err.Error(), filepath.Join(dir, nodefile.Name)) {
			t.Errorf("absent: %v", err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, nodefile.Name)
	for _, garbage := range []string{"", "{", "[]", "node1\n", `{"mtu": "1450"}`, `{"podCIDRs": ["10.244.1.0"]}`, `{"reserved": ["10.244.1"]}`, "{}{}", "\x00\x00"} {
		if err := os.WriteFile(path, []byte(garbage), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := nodefile.Read(dir); err == nil || errors.Is(err, nodefile.ErrAbsent) || !strings.HasPrefix(err.Error(), "parse "+path+": ") {
			t.Errorf("%q: %v", garbage, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := nodefile.Read(dir); err == nil || errors.Is(err, nodefile.ErrAbsent) {
		t.Errorf("a folder: %v", err)
	}
}

func TestReaderNeverSeesHalfADescription(t *testing.T) {
	dir := t.TempDir()
	long := node
	long.Name = strings.Repeat("n", 64<<10) // more than one system call would write at once
	if err := nodefile.Write(dir, node); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 200 && err == nil; i++ {
			err = nodefile.Write(dir, []nodefile.Node{long, node}[i%2])
		}
		done <- err
	}()
	for {
		got, err := nodefile.Read(dir)
		if err != nil || diff(node, got) != "" && diff(long, got) != "" {
			t.Fatalf("read %d bytes of name, %v", len(got.Name), err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			expectOnlyTheDescription(t, dir)
			return
		default:
		}
	}
}

func expectOnlyTheDescription(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != nodefile.Name {
		t.Errorf("in the run directory: %v, %v", entries, err)
	}
}

func TestAWriteThatFailsLeavesNothingBehind(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	if err := nodefile.Write(absent, node); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "write the node's description: ") {
		t.Errorf("into a folder that is not there: %v", err)
	}
	if _, err := os.Stat(absent); err == nil {
		t.Error("the folder was made")
	}

	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, nodefile.Name, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := nodefile.Write(dir, node); err == nil {
		t.Error("a folder was replaced by a file")
	}
	expectOnlyTheDescription(t, dir)
}

// TestWhatIsDescribedAlreadyIsNotWrittenAgain: weftd describes the node every few seconds.
func TestWhatIsDescribedAlreadyIsNotWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	inode := func(n nodefile.Node) uint64 {
		t.Helper()
		if err := nodefile.Write(dir, n); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, nodefile.Name))
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	first := inode(nodefile.Node{Name: "node1", MTU: 1440})
	if again := inode(nodefile.Node{Name: "node1", MTU: 1440}); again != first {
		t.Error("it was written again")
	}
	if other := inode(nodefile.Node{Name: "node1", MTU: 1420}); other == first {
		t.Error("another one was not written")
	}
}
