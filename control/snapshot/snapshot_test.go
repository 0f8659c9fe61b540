package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/control"
	"weft/peer"
)

var state = control.State{Origin: "etcd /weft", Registered: true, Nodes: []control.Node{
	{Name: "node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338"), Key: peer.Fingerprint{1}, Origin: "etcd /weft/nodes/node1",
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")}},
	{Name: "node2", Endpoint: netip.MustParseAddrPort("[fd00:77::2]:9338"), VTEPMAC: peer.MAC{2, 0, 0, 0, 0, 2}, PodCIDRs: []netip.Prefix{}},
}, Gone: map[string]peer.Fingerprint{"node3": {3}}}

func write(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nodes")
	if err := Write(path, "ours", state); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestASnapshotIsReadAsItWasWritten(t *testing.T) {
	path := write(t)
	got, err := Read(path, "ours", state.Origin)
	if err != nil {
		t.Fatal(err)
	}
	want := state
	want.Nodes = []control.Node{state.Nodes[0], state.Nodes[1]}
	want.Nodes[0].Origin, want.Nodes[1].Origin = path, path
	opts := cmp.Options{cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

func TestASnapshotOfAnotherSourceIsNotUsed(t *testing.T) {
	_, err := Read(write(t), "ours", "etcd /other")
	if err == nil || !strings.Contains(err.Error(), "the snapshot is of etcd /weft, and not of etcd /other") {
		t.Error(err)
	}
}

// TestASnapshotOfAnotherClusterIsNotUsed: a node that was moved to another cluster would
// trust the nodes of the one that it has left.
func TestASnapshotOfAnotherClusterIsNotUsed(t *testing.T) {
	_, err := Read(write(t), "theirs", state.Origin)
	if err == nil || !strings.Contains(err.Error(), "the snapshot is of another cluster") {
		t.Error(err)
	}
}

func TestThereMayBeNoSnapshot(t *testing.T) {
	if _, err := Read(filepath.Join(t.TempDir(), "nodes"), "ours", "etcd /weft"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Read(t.TempDir(), "ours", "etcd /weft"); err == nil {
		t.Error("a folder was read")
	}
}

func TestEveryDamageToASnapshotIsSeen(t *testing.T) {
	path := write(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data[:len(data)-1] { // the last newline means nothing
		for _, damaged := range [][]byte{data[:i], append(append(bytes.Clone(data[:i]), data[i]^1), data[i+1:]...)} {
			if _, err := parse(damaged); err == nil {
				t.Fatalf("read %q", damaged)
			}
		}
	}
}

// FuzzParse: whatever a damaged disk has, and whoever made a sum to go with it, gives an
// error or a State that can be written again.
func FuzzParse(f *testing.F) {
	body, err := json.Marshal(content{version, "ours", state.Origin, state.Registered, state.Nodes, state.Gone})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"version":1,"nodes":[{"name":"a","endpoint":"","podCIDRs":["0.0.0.0/0"]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := parse(body); err == nil {
			t.Error("taken without a sum")
		}
		sum := sha256.Sum256(body)
		c, err := parse(slices.Concat(hex.AppendEncode(nil, sum[:]), []byte{'\n'}, body, []byte{'\n'}))
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var back content
		if err := json.Unmarshal(again, &back); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if third, err := json.Marshal(back); err != nil || !bytes.Equal(third, again) {
			t.Errorf("%s became %s, %v", again, third, err)
		}
	})
}
