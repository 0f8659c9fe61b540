package encap_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/encap"
)

// A host has more addresses than its endpoint's: virtual, temporary, secondary ones, which
// the kernel may prefer.
func TestDatagramsLeaveFromTheEndpoint(t *testing.T) {
	host, others := hosts(t, 1)
	for _, command := range []string{
		"ip addr add 10.9.1.77/24 dev link1", "ip addr add fd00:9::1/64 dev link1 nodad", "ip addr add fd00:9::77/128 dev link1 nodad",
	} {
		fields := strings.Fields(command)
		if _, err := host.Exec(t.Context(), fields[0], fields[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := others[0].Exec(t.Context(), "ip", "addr", "add", "fd00:9::2/64", "dev", "eth0", "nodad"); err != nil {
		t.Fatal(err)
	}
	v4, v6 := []string{"10.9.1.1", "10.9.1.77"}, []string{"fd00:9::1", "fd00:9::77"}
	for _, tc := range []struct {
		listen, to string
		from       []string // one after the other
	}{{"0.0.0.0", "10.9.1.2", v4}, {"[::]", "10.9.1.2", v4}, {"[::]", "fd00:9::2", v6}} {
		t.Run(tc.to+" from "+tc.listen, func(t *testing.T) {
			from, to := listenIn(t, host, tc.listen+":0"), listenIn(t, others[0], tc.listen+":0")
			target := peerAt(to, tc.to)
			send := func() (sources []netip.Addr) {
				t.Helper()
				b := new(encap.Batch)
				for _, class := range []uint8{0, 0, 2, 3, 3} { // runs and single ones, with a class or none
					b.Add(target, class, make([]byte, 100), nil, 100)
				}
				if sent := from.WriteBatch(b); sent.Refused > 0 {
					t.Fatalf("WriteBatch = %+v", sent)
				}
				if err := from.WriteTo([]byte("a handshake"), target.Endpoint); err != nil {
					t.Fatal(err)
				}
				watchdog := time.AfterFunc(time.Minute, func() { to.Close() })
				defer watchdog.Stop()
				for len(sources) < 6 {
					received, err := to.ReadBatch()
					if err != nil {
						t.Fatal(err)
					}
					for i := range received {
						sources = append(sources, received[i].From.Addr())
					}
				}
				return sources
			}
			chosen := send()[0]
			for _, text := range append(tc.from, tc.from[0]) {
				want := netip.MustParseAddr(text)
				from.SendFrom(want)
				for i, got := range send() {
					if got != want {
						t.Errorf("datagram %d leaves from %s, want %s", i, got, want)
					}
				}
			}
			other := map[bool]string{true: "fd00:9::77", false: "10.9.1.77"}[isIPv4(tc.to)]
			for _, none := range []netip.Addr{{}, netip.MustParseAddr(other)} {
				from.SendFrom(none)
				if got := send()[0]; got != chosen {
					t.Errorf("without an address of the family datagrams leave from %s, before from %s", got, chosen)
				}
			}
		})
	}
}

func isIPv4(addr string) bool { return netip.MustParseAddr(addr).Is4() }
