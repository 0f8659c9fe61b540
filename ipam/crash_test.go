package ipam

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// workerDir, when set, makes this binary a process that acquires and releases leases in
// that state directory until it is killed.
const workerDir = "IPAM_TEST_WORKER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerDir); dir != "" {
		work(dir)
	}
	os.Exit(m.Run())
}

// stored makes a store with two leases, and returns it with its file's bytes.
func stored(t *testing.T) (*Store, []byte) {
	t.Helper()
	s := open(t, t.TempDir())
	acquire(t, s, 1, prefixes("10.0.0.0/24", "fd00::/64"))
	acquire(t, s, 2, prefixes("10.0.0.0/24", "fd00::/64"))
	data, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	return s, data
}

func TestEveryTruncationIsDetected(t *testing.T) {
	_, data := stored(t)
	for n := range data {
		if _, err := decode(data[:n]); err == nil {
			t.Errorf("%d of %d bytes were accepted", n, len(data))
		}
	}
}

func TestEveryFlippedBitIsDetected(t *testing.T) {
	_, data := stored(t)
	for i := range len(data) * 8 {
		data[i/8] ^= 1 << (i % 8)
		if _, err := decode(data); err == nil {
			t.Errorf("bit %d of byte %d (%q) was accepted", i%8, i/8, data[i/8])
		}
		data[i/8] ^= 1 << (i % 8)
	}
}

// A damaged file is refused with its name and a remedy.
func TestDamagedFileIsRefused(t *testing.T) {
	damages := map[string]func([]byte) []byte{
		"empty":           func([]byte) []byte { return nil },
		"truncated":       func(data []byte) []byte { return data[:len(data)/2] },
		"another version": func(data []byte) []byte { return []byte(`{"version": 1}`) },
		"two files":       func(data []byte) []byte { return append(data, data...) },
		"another address": func(data []byte) []byte {
			return []byte(strings.Replace(string(data), "10.0.0.1", "10.0.0.7", 1))
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			s, data := stored(t)
			damaged := damage(data)
			if err := os.WriteFile(s.Path(), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.Acquire(t.Context(), wanted(3), pool(prefixes("10.0.0.0/24")))
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("got %v, want ErrCorrupt", err)
			}
			for _, part := range []string{s.Path(), "weft ipam gc", "remove the file"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not contain %q", err, part)
				}
			}
			if _, _, err := s.Release(t.Context(), attachment(1)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Release: got %v, want ErrCorrupt", err)
			}
			if after, _ := os.ReadFile(s.Path()); !cmp.Equal(string(after), string(damaged)) {
				t.Error("the damaged file was changed")
			}
		})
	}
}

func TestAContentThatContradictsItselfIsRefused(t *testing.T) {
	lease := wanted(1, "10.0.0.1")
	tests := map[string]func(*state){
		"one address, two holders": func(st *state) {
			st.Leases = []Lease{lease, wanted(2, "10.0.0.1")}
		},
		"one attachment, two leases": func(st *state) {
			st.Leases = []Lease{lease, wanted(1, "10.0.0.2")}
		},
		"null instead of a list": func(st *state) { st.Cursors = nil },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			st := newState()
			spoil(st)
			data, err := encode(st)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decode(data); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestWhatAKilledWriterLeavesIsIgnored(t *testing.T) {
	s, data := stored(t)
	st, err := decode(data)
	if err != nil {
		t.Fatal(err)
	}
	st.remove(attachment(1), moment{})
	unwritten, err := encode(st)
	if err != nil {
		t.Fatal(err)
	}
	leftovers := map[string][]byte{
		"created, nothing written": nil,
		"half written":             unwritten[:len(unwritten)/2],
		"written, not renamed":     unwritten,
		"longer than the next one": append(unwritten, make([]byte, 4096)...),
	}
	for name, leftover := range leftovers {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(s.Path(), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.Path()+".tmp", leftover, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, ok, err := s.Find(attachment(1)); err != nil || !ok {
				t.Errorf("the old state is gone: %t, %v", ok, err)
			}
			acquire(t, s, 3, prefixes("10.0.0.0/24", "fd00::/64"))
			if leases := list(t, s); len(leases) != 3 {
				t.Errorf("%d leases, want 3", len(leases))
			}
			if _, err := os.Stat(s.Path() + ".tmp"); !os.IsNotExist(err) {
				t.Errorf("the temporary file is still there: %v", err)
			}
		})
	}
}

func TestAFullDiskChangesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test mounts a small file system: run it as root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := open(t, dir)
	acquire(t, s, 1, prefixes("10.0.0.0/24"))
	before, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	if _, err := s.Acquire(t.Context(), wanted(2), pool(prefixes("10.0.0.0/24"))); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
	after, _ := os.ReadFile(s.Path())
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Error(diff)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	acquire(t, s, 2, prefixes("10.0.0.0/24"))
}

func FuzzDecode(f *testing.F) {
	st := newState()
	p := pool(prefixes("10.0.0.0/24", "fd00::/64"))
	families, err := p.families()
	if err != nil {
		f.Fatal(err)
	}
	for n := range 3 {
		if _, err := st.allocate(wanted(n), p, families, moment{}); err != nil {
			f.Fatal(err)
		}
	}
	st.remove(attachment(1), moment{})
	valid, err := encode(st)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(valid)
	f.Add([]byte{})
	f.Add([]byte("null"))
	f.Add([]byte(`{"version":2,"cursors":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := decode(data)
		if err != nil {
			// The checksum hides what lies behind it from the fuzzer: sign what parses.
			if st, err = resign(data); err != nil {
				return
			}
		}
		fuzz := Lease{Attachment: Attachment{"fuzz", "eth0"}}
		st.remove(fuzz.Attachment, moment{})
		lease, err := st.allocate(fuzz, p, families, moment{})
		if err == nil && !p.fits(families, lease.Addresses, nil) {
			t.Errorf("allocated %v", lease)
		}
		encoded, err := encode(st)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(encoded); err != nil {
			t.Errorf("what was written can't be read: %v", err)
		}
	})
}

// resign returns the state that data would hold if its checksum were right.
func resign(data []byte) (*state, error) {
	_, err := decode(data)
	if err == nil || !strings.Contains(err.Error(), "checksum") {
		return nil, errors.Join(err, errors.New("not a checksum that is wrong"))
	}
	st := newState()
	if err := json.Unmarshal(data, st); err != nil {
		return nil, err
	}
	signed, err := encode(st)
	if err != nil {
		return nil, err
	}
	return decode(signed)
}

// work prints "+ address" after each lease it got and "- address" before each release,
// which it begins only when a line on stdin says that the announcement was read.
func work(dir string) {
	heard := bufio.NewScanner(os.Stdin)
	s, err := Open(dir, []string{"weft", "other"}[os.Getpid()%2])
	if err != nil {
		panic(err)
	}
	ranges := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/28")}
	for n := 0; ; n++ {
		a := Attachment{ContainerID: fmt.Sprintf("%d.%d", os.Getpid(), n), IfName: "eth0"}
		lease, err := s.Acquire(context.Background(), Lease{Attachment: a}, pool(ranges))
		if errors.Is(err, ErrExhausted) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			panic(err)
		}
		fmt.Println("+", lease.Addresses[0])
		fmt.Println("-", lease.Addresses[0])
		heard.Scan()
		if _, _, err := s.Release(context.Background(), a); err != nil {
			panic(err)
		}
	}
}

// Processes that are killed never share an address, of two networks either, nor damage a file.
func TestKilledProcessesShareNothing(t *testing.T) {
	dir := t.TempDir()
	var (
		mu      sync.Mutex
		holders = map[string]int{} // address to process
		changes int
	)
	claim := func(worker int, line string) {
		mu.Lock()
		defer mu.Unlock()
		changes++
		op, addr, _ := strings.Cut(line, " ")
		if op == "-" {
			delete(holders, addr)
			return
		}
		if other, ok := holders[addr]; ok {
			t.Errorf("%s is held by process %d and by process %d", addr, other, worker)
		}
		holders[addr] = worker
	}
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return changes >= 100
	}
	var workers sync.WaitGroup
	for w := range 6 {
		workers.Go(func() {
			// On a busy machine a worker may be killed before it has done anything.
			for round := 0; round < 5 || !enough() && round < 100; round++ {
				pid := runUntilKilled(t, dir, func(line string) { claim(w, line) })
				reap(t, openFor(t, dir, pid), pid, func(line string) { claim(w, line) })
			}
		})
	}
	workers.Wait()
	left := append(list(t, openFor(t, dir, 0)), list(t, openFor(t, dir, 1))...)
	if len(left) != 0 || changes < 100 {
		t.Errorf("%d leases left after %d changes", len(left), changes)
	}
}

// runUntilKilled runs a worker for a random while and hands on every line it prints.
func runUntilKilled(t *testing.T, dir string, heard func(line string)) (pid int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerDir+"="+dir)
	out, outErr := cmd.StdoutPipe()
	in, inErr := cmd.StdinPipe()
	if err := errors.Join(outErr, inErr, cmd.Start()); err != nil {
		t.Error(err)
		return 0
	}
	// From the first line on: to start may take longer than that on a busy machine.
	var kill sync.Once
	hang := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer hang.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		kill.Do(func() {
			time.AfterFunc(time.Duration(rand.IntN(250))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		})
		heard(lines.Text())
		if strings.HasPrefix(lines.Text(), "-") {
			fmt.Fprintln(in)
		}
	}
	_ = cmd.Wait() // it always was killed
	return cmd.Process.Pid
}

// reap releases what a killed process held, as a runtime does that repeats DEL.
func reap(t *testing.T, s *Store, pid int, heard func(line string)) {
	leases, _, err := s.List()
	if err != nil {
		t.Error(err)
	}
	for _, l := range leases {
		if strings.HasPrefix(l.ContainerID, fmt.Sprintf("%d.", pid)) {
			heard("- " + l.Addresses[0].String())
			if _, _, err := s.Release(context.Background(), l.Attachment); err != nil {
				t.Error(err)
			}
		}
	}
}
