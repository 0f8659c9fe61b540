package stage

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

const marker = "can this be read?"

func frameOf(etherType uint16, content []byte) []byte {
	frame := make([]byte, testnet.EthernetLen, testnet.EthernetLen+len(content))
	binary.BigEndian.PutUint16(frame[12:], etherType)
	return append(frame, content...)
}

// datagramOf is a frame with a UDP datagram over IPv4.
func datagramOf(payload ...byte) []byte {
	packet := make([]byte, 28, 28+len(payload))
	packet[0], packet[9] = 0x45, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(packet[2:], uint16(28+len(payload)))
	return frameOf(unix.ETH_P_IP, append(packet, payload...))
}

func TestUnderlayIsJudgedByWhatIsReallyThere(t *testing.T) {
	sealed := datagramOf(append([]byte{1, 0, 0, 0}, make([]byte, 60)...)...)
	probe := datagramOf(append([]byte{1, 0, 0, 0}, make([]byte, 40)...)...)
	quic := datagramOf(append([]byte{0xc0, 0, 0, 0, 1}, make([]byte, 60)...)...)
	vxlan := datagramOf(append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, marker...)...)
	arp := frameOf(unix.ETH_P_ARP, make([]byte, 28))
	listener := frameOf(unix.ETH_P_IPV6, append(append(make([]byte, 6, 80), unix.IPPROTO_HOPOPTS), make([]byte, 60)...))
	listener[testnet.EthernetLen+40] = unix.IPPROTO_ICMPV6
	tcp := slices.Clone(sealed)
	tcp[testnet.EthernetLen+9] = unix.IPPROTO_TCP

	for name, test := range map[string]struct {
		frames          [][]byte
		sealed, inClear string // what the errors of an exchange say
	}{
		"sealed":                          {[][]byte{arp, quic, sealed, sealed, listener}, "", "only 0 datagrams"},
		"sealed, and probes":              {[][]byte{sealed, sealed, probe, probe}, "", "only 0 datagrams"},
		"vxlan":                           {[][]byte{arp, vxlan, vxlan, listener}, "can be read in 2 frames", ""},
		"one in clear":                    {[][]byte{sealed, sealed, vxlan}, "can be read in 1 frames", "only 1 datagrams"},
		"marker where it may not be seen": {[][]byte{sealed, sealed, append(slices.Clone(arp), marker...)}, "can be read in 1 frames", "only 1"},
		"another datagram":                {[][]byte{sealed, sealed, datagramOf(9, 9, 9)}, "1 datagrams on the underlay are neither", "only 0"},
		"a datagram too short":            {[][]byte{sealed, sealed, datagramOf(1, 0, 0, 0)}, "1 datagrams on the underlay are neither", "only 0"},
		"an empty datagram":               {[][]byte{sealed, sealed, datagramOf()}, "1 datagrams on the underlay are neither", "only 0"},
		"TCP":                             {[][]byte{sealed, sealed, tcp}, "not a datagram", "not a datagram"},
		"a broken frame":                  {[][]byte{sealed, sealed, {1, 2, 3}}, "not a datagram", "not a datagram"},
		"half of it":                      {[][]byte{quic, sealed}, "only 1 datagrams", "only 0"},
		"nothing":                         {nil, "only 0 datagrams", "only 0 datagrams"},
	} {
		t.Run(name, func(t *testing.T) {
			seen := TallyOf(test.frames, marker)
			expectError(t, "sealed", seen.MustBeSealed(1), test.sealed)
			expectError(t, "in clear", seen.MustBeReadable(1), test.inClear)
		})
	}
}

// expectError checks what an error says; no text means that there must be none.
func expectError(t *testing.T, of string, err error, text string) {
	t.Helper()
	if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want %q", of, err, text)
	}
}

// What is read must not depend on lengths that a frame claims.
func TestShortFramesAreClassified(t *testing.T) {
	for _, whole := range [][]byte{datagramOf(1, 0, 0, 0), frameOf(unix.ETH_P_IPV6, make([]byte, 60)), frameOf(unix.ETH_P_ARP, nil)} {
		for length := range len(whole) {
			frame := slices.Clip(whole[:length])
			TallyOf([][]byte{frame}, marker)
			testnet.Hosts(frame)
			if length > testnet.EthernetLen {
				long := slices.Clone(frame)
				long[testnet.EthernetLen] = 0x4f // the longest header
				TallyOf([][]byte{long}, marker)
			}
		}
	}
}
