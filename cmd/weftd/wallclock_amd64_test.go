package main_test

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/testnet"
)

// wallClock is CLOCK_REALTIME as one weftd sees it; the machine's own is not touched, and
// CLOCK_MONOTONIC is the machine's. Programs read both by a function that the kernel maps
// into each process (vdso(7)). In weftd's copy of it, code of ours stands in its place.
type wallClock struct {
	memory *os.File
	offset int64 // where the code finds by how many seconds the clock is wrong
}

// clockCode is __vdso_clock_gettime for a clock that is wrong. What follows it, at
// clockOffset, is the number of seconds.
var clockCode = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi: CLOCK_REALTIME is 0
	0x75, 0x0a, // jne to ret
	0x48, 0x8b, 0x0d, 0x06, 0x00, 0x00, 0x00, // mov rcx, [rip+6]
	0x48, 0x01, 0x0e, // add [rsi], rcx: the seconds of a timespec
	0xc3,       // ret
	0xcc, 0xcc, // int3
}

// clockOffset is aligned, so that a reader never sees half of a number.
const clockOffset = 24

// takeWallClock gives a node's weftd a clock of its own, until it ends.
func takeWallClock(t *testing.T, node *testnet.Node) *wallClock {
	t.Helper()
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", node.PID()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	begin, end := vdso(t, node.PID())
	entry := symbolIn(t, memory, begin, end, "__vdso_clock_gettime", 8)
	// Go has no use for the resolution of clocks.
	room := symbolIn(t, memory, begin, end, "__vdso_clock_getres", clockOffset+8)
	c := &wallClock{memory, room + clockOffset}
	jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(room-(entry+5)))
	eventually(t, "weftd to stand still elsewhere than in the code to be replaced", func() (err error) {
		held(t, node, func() { err = c.put(node.PID(), begin, end, entry, jump, room) })
		return err
	})
	return c
}

// put puts the code in its place, unless a thread stands in what it replaces.
func (c *wallClock) put(pid int, begin, end, entry int64, jump []byte, room int64) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		return fmt.Errorf("no threads: %w", err)
	}
	for _, thread := range threads {
		at, err := instruction(thread)
		if err != nil {
			return err
		}
		if begin <= at && at < end {
			return fmt.Errorf("%s stands at %#x", thread, at)
		}
	}
	if _, err := c.memory.WriteAt(append(clockCode[:clockOffset:clockOffset], make([]byte, 8)...), room); err != nil {
		return err
	}
	_, err = c.memory.WriteAt(jump, entry)
	return err
}

// instruction is where a thread that stands still will go on (proc_pid_syscall(5)).
func instruction(thread string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(thread, "syscall"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, nil // it has ended
	}
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	var at int64
	if _, err := fmt.Sscanf(fields[len(fields)-1], "0x%x", &at); err != nil {
		return 0, fmt.Errorf("%s does not stand still: %s", thread, text)
	}
	return at, nil
}

// vdso returns where the kernel's functions are mapped in a process.
func vdso(t *testing.T, pid int) (begin, end int64) {
	t.Helper()
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/maps", pid))) {
		if strings.Contains(line, "[vdso]") {
			if _, err := fmt.Sscanf(line, "%x-%x", &begin, &end); err != nil {
				t.Fatal(err)
			}
			return begin, end
		}
	}
	t.Fatal("weftd reads the clock in a way that this test does not know: it has no vDSO")
	return 0, 0
}

// symbolIn returns where a function of the vDSO is, which must have a size of at least
// least bytes.
func symbolIn(t *testing.T, memory *os.File, begin, end int64, name string, least uint64) int64 {
	t.Helper()
	image := make([]byte, end-begin)
	if _, err := memory.ReadAt(image, begin); err != nil {
		t.Fatal(err)
	}
	file, err := elf.NewFile(strings.NewReader(string(image)))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name == name && s.Size >= least && s.Value%8 == 0 {
			return begin + int64(s.Value)
		}
	}
	t.Fatalf("no %s of %d bytes in the vDSO", name, least)
	return 0
}

// set has the clock be wrong by so much.
func (c *wallClock) set(t *testing.T, wrong time.Duration) {
	t.Helper()
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(wrong/time.Second))
	if _, err := c.memory.WriteAt(seconds, c.offset); err != nil {
		t.Fatal(err)
	}
}
