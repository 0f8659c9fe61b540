package main_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// record returns the frames that a link has sent and received while f ran.
func record(t *testing.T, at *testnet.Namespace, link string, f func()) [][]byte {
	t.Helper()
	frames, err := at.Record(link, func() error {
		f()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// checksums has tshark verify the checksums of a protocol in frames, and counts what it
// says of them.
func checksums(t *testing.T, frames [][]byte, protocol string) map[string]int {
	t.Helper()
	file := filepath.Join(t.TempDir(), "frames.pcap")
	if err := os.WriteFile(file, pcap(frames), 0o600); err != nil {
		t.Fatal(err)
	}
	tshark := exec.CommandContext(t.Context(), "tshark", "-r", file, "-n", "-Y", protocol,
		"-o", protocol+".check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
		"-T", "fields", "-e", protocol+".checksum.status", "-e", protocol+".checksum")
	out, err := tshark.Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	return count(bytes.NewReader(out))
}

// pcap makes a file of frames as libpcap does (pcap-savefile(5)).
func pcap(frames [][]byte) []byte {
	const magic, snapLen, linkEthernet = 0xa1b2c3d4, 1 << 18, 1
	file := binary.LittleEndian.AppendUint32(nil, magic)
	file = append(file, 2, 0, 4, 0)
	for _, field := range []uint32{0, 0, snapLen, linkEthernet} {
		file = binary.LittleEndian.AppendUint32(file, field)
	}
	for _, frame := range frames {
		for _, field := range []int{0, 0, len(frame), len(frame)} { // the time is of no interest
			file = binary.LittleEndian.AppendUint32(file, uint32(field))
		}
		file = append(file, frame...)
	}
	return file
}

// count tallies the field tcp.checksum.status: 0 is bad, 1 is good. tshark calls the
// checksum 0xffff bad, since 0 is the usual way to write that number. The kernel's
// skb_checksum_help writes 0xffff.
func count(out io.Reader) map[string]int {
	names := map[string]string{"0": "Bad", "1": "Good"}
	counts := map[string]int{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		status, checksum, _ := strings.Cut(lines.Text(), "\t")
		name, known := names[status]
		switch {
		case !known:
			name = fmt.Sprintf("status %q", status)
		case checksum == "0xffff":
			name = "Good"
		}
		counts[name]++
	}
	return counts
}

// With the checksum offload of the pods' links off, what is captured there is what a
// real card would send.
func TestCapturedChecksumsAreValid(t *testing.T) {
	t.Parallel()
	_, pod1, pod2 := podsOnTwoNodes(t)
	for _, pod := range []*testnet.Pod{pod1, pod2} {
		run(t, pod.Namespace, "ethtool", "-K", "eth0", "tx", "off", "rx", "off")
		run(t, pod.Node.Namespace, "ethtool", "-K", hostVeth(t, pod.Node.Namespace), "tx", "off")
	}
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			frames := record(t, pod2.Namespace, "eth0", func() {
				transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), 4<<20)
				f := newFlow(t, pod1, pod2, v6)
				for size := range 1000 {
					f.expectBurst(t, randomBytes(size, byte(size)))
				}
			})
			for _, protocol := range []string{"tcp", "udp"} {
				if seen := checksums(t, frames, protocol); len(seen) != 1 || seen["Good"] < 1000 {
					t.Errorf("tshark sees %s checksums: %v", protocol, seen)
				}
			}
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace, pod1.Node.Namespace, pod2.Node.Namespace)
}
