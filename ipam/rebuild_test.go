package ipam

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func damage(t *testing.T, s *Store) []byte {
	t.Helper()
	data, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(s.Path(), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestADamagedFileIsReplacedByWhatRunsAndKept(t *testing.T) {
	s, ranges := open(t, t.TempDir()), prefixes("10.0.0.0/24")
	for n := range 3 {
		acquire(t, s, n, ranges)
	}
	running := list(t, s)[:2]
	for range 2 { // the second time there is an older one that was kept
		damaged := damage(t, s)
		path, err := s.Rebuild(t.Context(), running)
		if err != nil {
			t.Fatal(err)
		}
		if kept, _ := os.ReadFile(path); !cmp.Equal(kept, damaged) {
			t.Errorf("%s is not the damaged file", path)
		}
		if diff := cmp.Diff(running, list(t, s), cmpAddrs, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	if got := acquire(t, s, 7, ranges); got[0] != addrs("10.0.0.3")[0] {
		t.Errorf("got %v, want what no running pod has", got)
	}
	if path, err := s.Rebuild(t.Context(), nil); path != "" || err != nil {
		t.Errorf("a file that is in order was replaced: %s, %v", path, err)
	}
	if leases := list(t, s); len(leases) != 3 {
		t.Errorf("leases: %v", leases)
	}
}

func TestWhatContradictsItselfIsNotRebuilt(t *testing.T) {
	s := open(t, t.TempDir())
	acquire(t, s, 1, prefixes("10.0.0.0/24"))
	damage(t, s)
	if _, err := s.Rebuild(t.Context(), []Lease{wanted(1, "10.0.0.1"), wanted(2, "10.0.0.1")}); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
	if _, _, err := s.List(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt still", err)
	}
}

func TestARebuiltFileMustBePossible(t *testing.T) {
	s := open(t, "/proc/no")
	if _, err := s.Rebuild(t.Context(), nil); err == nil {
		t.Error("no folder, no error")
	}
}

func TestEveryNetworkWithLeasesIsFound(t *testing.T) {
	dir := t.TempDir()
	if stores, err := OpenAll(dir); err != nil || len(stores) != 0 {
		t.Errorf("before the first: %v, %v", stores, err)
	}
	for _, network := range []string{"weft", "other.net"} {
		s, err := Open(dir, network)
		if err != nil {
			t.Fatal(err)
		}
		acquire(t, s, 1, prefixes("10.0.0.0/24"))
		if err := os.WriteFile(s.Path()+".tmp", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stores, err := OpenAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	var networks []string
	for _, s := range stores {
		networks = append(networks, s.Network())
	}
	if diff := cmp.Diff([]string{"other.net", "weft"}, networks); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(filepath.Join(dir, "ipam", ".json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAll(dir); err == nil {
		t.Error("a file without a network's name was accepted")
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAll(filepath.Join(dir, "file")); err == nil {
		t.Error("a file for a folder was accepted")
	}
}
