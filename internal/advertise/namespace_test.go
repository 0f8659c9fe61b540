package advertise

import (
	"context"
	"strings"
	"testing"
	"time"

	"weft/internal/family"
	"weft/internal/testnet"
)

// machine is a namespace with two network cards. They are macvlans, as the tests' machine
// has to have them without hardware: veths would be taken for those of containers.
//
//	eth0   eth1
//	 └─┬────┘
//	 cable ── peer
type machine struct {
	*testnet.Namespace
	t *testing.T
}

func newMachine(t *testing.T, commands ...string) machine {
	t.Helper()
	ns, err := testnet.ForTest(t, testnet.Options{Prefix: "weft-advertise"}).AddNamespace(t.Context(), "node")
	if err != nil {
		t.Fatal(err)
	}
	m := machine{ns, t}
	m.ip("link add cable type veth peer name peer", "link set cable up", "link set peer up")
	for _, card := range []string{"eth0", "eth1"} {
		m.ip("link add link cable name "+card+" type macvlan mode bridge", "link set "+card+" up")
	}
	m.ip(commands...)
	return m
}

// ip runs the commands of iproute2, one after the other.
func (m machine) ip(commands ...string) {
	m.t.Helper()
	for _, command := range commands {
		if _, err := m.Exec(m.t.Context(), "ip", strings.Fields(command)...); err != nil {
			m.t.Fatal(err)
		}
	}
}

// expect checks what the text of a rule chooses: an address, or words of the error.
func (m machine) expect(text string, families []family.Family, want string) {
	m.t.Helper()
	err := m.Do(func() error {
		n, closeNode, err := readNode()
		if err != nil {
			return err
		}
		defer closeNode()
		choice{n, clusterCIDRs, weftLinks}.expect(m.t, text, families, want)
		return nil
	})
	if err != nil {
		m.t.Error(err)
	}
}

func TestTheDefaultRouteWithTheLowestMetricDecides(t *testing.T) {
	m := newMachine(t,
		"addr add 192.168.77.1/24 dev eth0", "addr add 10.0.0.1/24 dev eth1", "addr add 10.0.0.2/24 dev eth1",
		"route add default via 192.168.77.254 metric 200", "route add default via 10.0.0.254 metric 100")
	m.expect("auto", only4, "10.0.0.1")
	m.expect("interface=eth0", only4, "192.168.77.1")
	m.expect("interface=eth1", only4, "10.0.0.1")
	m.expect("can-reach=192.168.77.7", only4, "192.168.77.1")
	m.expect("can-reach=10.0.0.2", only4, "10.0.0.1")
	m.expect("10.0.0.2", only4, "10.0.0.2")
	m.expect("10.0.0.3", only4, "it is in a subnet of eth1, which does not have it; write another of the node's: 192.168.77.1 (eth0), 10.0.0.1 (eth1), 10.0.0.2 (eth1)")
	m.expect("203.0.113.1", only4, "203.0.113.1") // a NAT's
	m.expect("interface=eth2", only4, "did you mean eth0?")
	m.expect("interface=eth0", only6, "no address of IPv6")
	m.ip("route del default via 10.0.0.254")
	m.expect("auto", only4, "192.168.77.1")
	m.ip("route change default via 192.168.77.254 src 10.0.0.2 metric 200")
	m.expect("auto", only4, "10.0.0.2")
}

func TestWithoutADefaultRouteTheOnlyAddressIsTaken(t *testing.T) {
	m := newMachine(t,
		"addr add 192.168.77.1/24 dev eth0", "addr add 192.168.77.2/24 dev eth0", "addr add 169.254.1.1/16 dev eth1",
		"link add docker0 type bridge", "link set docker0 up", "addr add 172.17.0.1/16 dev docker0",
		"addr add 172.18.0.1/16 dev peer", "addr add 10.9.0.1/32 dev lo",
		"tuntap add weft0 mode tun", "link set weft0 up", "addr add 10.8.0.1/32 dev weft0",
		"link add vxlan0 type vxlan id 7 dstport 4790", "link set vxlan0 up", "addr add 10.7.0.1/24 dev vxlan0")
	m.expect("auto", only4, "192.168.77.1")
	m.expect("interface=docker0", only4, "172.17.0.1")
	m.expect("interface=weft0", only4, "which is weft's")
	m.expect("10.8.0.1", only4, "which is weft's")
	m.expect("can-reach=192.0.2.1", only4, "no route to it")
	m.ip("addr add 10.0.0.1/24 dev eth1")
	m.expect("auto", only4, "192.168.77.1 (eth0), 10.0.0.1 (eth1); write one of them, interface=NAME, or can-reach=ADDRESS")
	m.ip("link set eth1 down")
	m.expect("auto", only4, "192.168.77.1")
	m.expect("interface=eth1", only4, "which is down")
}

// A node may refuse the documentation ranges by a route, and still have a default route.
func TestRefusedRangeHidesNoDefaultRoute(t *testing.T) {
	for _, kind := range []string{"unreachable", "blackhole", "prohibit"} {
		m := newMachine(t, "addr add 192.168.77.1/24 dev eth0", "addr add 10.0.0.1/24 dev eth1",
			"route add default via 10.0.0.254", "route add "+kind+" 192.0.2.0/24")
		m.expect("auto", only4, "10.0.0.1")
		m.expect("can-reach=192.0.2.1", only4, "no route to it")
	}
}

// Nor are deprecated ones.
func TestTemporaryAddressesAreNotChosen(t *testing.T) {
	m := newMachine(t)
	if err := m.Sysctl("net.ipv6.conf.eth0.use_tempaddr", "2"); err != nil {
		t.Fatal(err)
	}
	// The kernel makes a temporary address for one that is marked mngtmpaddr, and prefers it.
	m.ip("addr add fd00:77::1/64 dev eth0 nodad valid_lft 86400 preferred_lft 43200 mngtmpaddr",
		"addr add 2001:db8:77::9/64 dev eth0 nodad preferred_lft 0",
		"addr add fd00:1::1/64 dev eth1 nodad", "-6 route add default via fd00:77::fe")
	temporary := ""
	err := testnet.Wait(t.Context(), "a temporary address", func(ctx context.Context) error {
		out, err := m.Exec(ctx, "ip", "-6", "-o", "route", "get", "2001:db8::1")
		if err != nil {
			return err
		}
		_, source, _ := strings.Cut(out, " src ")
		if temporary, _, _ = strings.Cut(source, " "); temporary == "fd00:77::1" || temporary == "" {
			return context.DeadlineExceeded
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m.expect("auto", only6, "fd00:77::1")
	m.expect("can-reach=2001:db8::1", only6, "fd00:77::1")
	m.expect("interface=eth0", only6, "fd00:77::1")
	m.expect(temporary, only6, temporary)
	m.ip("addr change fd00:77::1/64 dev eth0 nodad preferred_lft 0")
	m.expect("interface=eth0", only6, "fd00:77::1 is deprecated")
	m.expect("auto", only6, "fd00:1::1 of eth1 is not where the default route leads")
}

func TestWatchReportsAChange(t *testing.T) {
	m := newMachine(t, "addr add 192.168.77.1/24 dev eth0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	chosen := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- m.Do(func() error {
			return Watch(ctx, func() {
				addr, err := Rule{}.Choose(only4, nil, nil)
				if err != nil {
					t.Log(err)
				}
				chosen <- addr.String()
			})
		})
	}()
	await := func(want string) {
		t.Helper()
		for limit := time.After(time.Minute); ; {
			select {
			case got := <-chosen:
				if got == want {
					return
				}
			case <-limit:
				t.Fatalf("%s was never chosen", want)
			}
		}
	}
	await("192.168.77.1")
	m.ip("addr add 192.168.77.2/24 dev eth0", "addr del 192.168.77.1/24 dev eth0", "addr replace 192.168.77.2/24 dev eth0")
	await("192.168.77.2")
	m.ip("addr add 10.0.0.1/24 dev eth1", "route add default via 10.0.0.254")
	await("10.0.0.1")
	m.ip("link set eth1 down")
	await("192.168.77.2")

	// Watch reports a flood of events once a debounce interval: not each event, and not only
	// when the flood ends.
	for len(chosen) > 0 {
		<-chosen
	}
	began := time.Now()
	for time.Since(began) < 3*debounce || len(chosen) == 0 && time.Since(began) < time.Minute {
		m.ip("addr add 10.5.0.1/24 dev eth1", "addr del 10.5.0.1/24 dev eth1")
	}
	calls, most := len(chosen), int(time.Since(began)/debounce)+1
	if calls == 0 || calls > most {
		t.Errorf("reported %d times in %v", calls, time.Since(began))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchIgnoresWeftsOwnRoutes(t *testing.T) {
	m := newMachine(t, "addr add 192.168.77.1/24 dev eth0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() { ended <- m.Do(func() error { return Watch(ctx, func() { changes <- struct{}{} }) }) }()
	<-changes // the one at the beginning
	m.ip("route add 10.244.2.0/24 dev eth0 proto 93", "route del 10.244.2.0/24 dev eth0 proto 93")
	time.Sleep(2 * debounce)
	if n := len(changes); n != 0 {
		t.Errorf("they are reported %d times", n)
	}
	m.ip("route add 10.244.2.0/24 dev eth0 proto 94")
	select {
	case <-changes:
	case <-time.After(time.Minute):
		t.Error("others' routes are not reported")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
