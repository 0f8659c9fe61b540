package hostnet

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"weft/internal/marks"
)

// watched is a namespace in which a Host repairs what others change.
type watched struct {
	namespace
	host    *Host
	repairs atomic.Int32
	err     atomic.Pointer[error] // what the last repair returned
}

func startWatch(t *testing.T) *watched {
	t.Helper()
	return watchWith(t, newHost())
}

func watchWith(t *testing.T, host *Host) *watched {
	t.Helper()
	w := &watched{namespace: newNamespace(t), host: host}
	w.openTUN(t, "weft0")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		// The thread stays in the namespace, and ends with the goroutine.
		runtime.LockOSThread()
		var err error
		w.do(t, func() {
			err = w.host.Watch(ctx, func() error {
				err := w.host.Apply(ctx, testNetwork())
				w.err.Store(&err)
				w.repairs.Add(1)
				return err
			})
		})
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	if !eventually(w.isWatched) {
		t.Fatal("Watch does not begin")
	}
	w.apply(t, w.host, testNetwork())
	w.settle(t)
	return w
}

func (w *watched) isWatched() bool {
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	return w.host.watched
}

// settle waits until no event waits to be answered.
func (w *watched) settle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		before := w.repairs.Load()
		time.Sleep(5 * debounce)
		if w.repairs.Load() == before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no end of events")
		}
	}
}

// tables returns all tables of nftables, whatever the order in which they were made.
func (ns namespace) tables(t testing.TB) string {
	t.Helper()
	return ns.run(t, "sh", "-c", "nft list tables | sort | while read -r table; do nft --stateless list $table || true; done 2>&1")
}

func (w *watched) everything(t *testing.T) string {
	t.Helper()
	return sorted(w.routing(t)) + w.tables(t) + w.ip(t, "-o address show dev weft0")
}

func TestForeignChangesAreRepaired(t *testing.T) {
	w := startWatch(t)
	w.ip(t, "link add elsewhere type bridge")
	w.ip(t, "link set elsewhere up")
	w.ip(t, "addr add 198.51.100.1/24 dev elsewhere")
	w.settle(t)
	before := w.everything(t)
	for _, tt := range []struct{ change, repaired string }{
		{"ip route del 10.244.2.0/24", "network"},
		{"ip -6 route del fd00:244:0:3::/64", "network"},
		{"ip route del 192.0.2.20 table 9338", "network"},
		{"ip route del unreachable 10.244.1.0/24 metric 1073741824", "network"},
		{"ip -4 route flush table all proto 93; ip -6 route flush table all proto 93", "network"},
		{"ip route add 10.9.9.0/24 via 198.51.100.9 proto 93", "network"},
		{"ip link set weft0 down", "network"},
		{"ip link set weft0 down; ip link set weft0 up", "network"},
		{"ip address flush dev weft0", "network"},
		{"ip -4 rule del pref 5181", "network"},
		{"ip -6 rule del pref 5181", "network"},
		{"nft delete table inet weft", "guard_table"},
		{"nft flush ruleset", "guard_table"},
		{"nft add chain inet weft strange", "guard_table"},
		{"nft delete table bridge weft", "bridge_table"},
		{"nft flush chain bridge weft input", "bridge_table"},
		{"nft add rule bridge weft prerouting accept", "bridge_table"},
	} {
		change, repairs, counted := tt.change, w.repairs.Load(), w.host.Repairs()[tt.repaired]
		w.run(t, "sh", "-ec", change)
		changed := time.Now()
		now := ""
		repaired := eventually(func() bool {
			now = w.everything(t)
			return now == before && w.repairs.Load() != repairs
		})
		if !repaired {
			t.Errorf("%s: it is not repaired", change)
			expect(t, change, now, before)
		}
		if w.host.Repairs()[tt.repaired] == counted {
			t.Errorf("%s: no repair of %s is counted", change, tt.repaired)
		}
		t.Logf("%-90s %v", change, time.Since(changed).Round(time.Millisecond))
	}
}

// A card that appears while weftd runs takes router advertisements though the node forwards; no
// other interface does, and a value set later stays.
func TestNewCardsHeedRouters(t *testing.T) {
	host := newHost()
	host.events.isNIC = func(link netlink.Link) bool { return strings.HasPrefix(link.Attrs().Name, "card") }
	w, far := watchWith(t, host), newNamespace(t)
	acceptRA := func(name string) string { return w.sysctl(t, "net.ipv6.conf."+name+".accept_ra") }
	veth(t, w.namespace, "other", 0, far, "other")
	veth(t, w.namespace, "card0", 0, far, "card0")
	if !eventually(func() bool { return acceptRA("card0") == "2" }) {
		t.Fatalf("accept_ra of the card is %s", acceptRA("card0"))
	}
	w.run(t, "sysctl", "-qw", "net.ipv6.conf.card0.accept_ra=1")
	w.ip(t, "link set card0 down")
	veth(t, w.namespace, "card1", 0, far, "card1")
	if !eventually(func() bool { return acceptRA("card1") == "2" }) {
		t.Errorf("accept_ra of the second card is %s", acceptRA("card1"))
	}
	if other, card := acceptRA("other"), acceptRA("card0"); other != "1" || card != "1" {
		t.Errorf("accept_ra of another interface is %s, and of a card on which it was set back %s", other, card)
	}
	for name, tt := range map[string]struct {
		link netlink.Link
		want bool
	}{
		"a card":                       {&netlink.Device{}, true},
		"a VLAN of a card":             {&netlink.Vlan{}, true},
		"a bond":                       {&netlink.Bond{}, true},
		"the loopback":                 {&netlink.Device{LinkAttrs: netlink.LinkAttrs{Flags: net.FlagLoopback}}, false},
		"a veth":                       {&netlink.Veth{}, false},
		"a bridge":                     {&netlink.Bridge{}, false},
		"a TUN device":                 {&netlink.Tuntap{}, false},
		"a card in a pod's link group": {&netlink.Device{LinkAttrs: netlink.LinkAttrs{Group: marks.PodLinkGroup}}, false},
	} {
		if got := IsNIC(tt.link); got != tt.want {
			t.Errorf("%s: IsNIC is %t", name, got)
		}
	}
}

func TestARouteThatAnotherProgramReplacesIsMissed(t *testing.T) {
	w := startWatch(t)
	w.ip(t, "link add elsewhere type bridge")
	w.ip(t, "link set elsewhere up")
	w.settle(t)
	repairs := w.repairs.Load()
	w.ip(t, "route replace 10.244.2.0/24 dev elsewhere proto static")
	if !eventually(func() bool { return w.repairs.Load() != repairs }) {
		t.Fatal("it is not noticed")
	}
	// It is not weft's any more, and so it stays.
	if err := *w.err.Load(); err == nil || !strings.Contains(err.Error(), "the route to 10.244.2.0/24 (table 254) is taken by another program's") {
		t.Errorf("it is reported as: %v", err)
	}
}

// A program that undoes everything does not keep weftd busy without end.
func TestRepairsAreLimited(t *testing.T) {
	w := startWatch(t)
	before, began := w.repairs.Load(), time.Now()
	for time.Since(began) < (repairBurst+10)*debounce {
		w.run(t, "sh", "-c", "ip route del 10.244.2.0/24 2>&1 || true")
		time.Sleep(debounce / 4)
	}
	most := int64(repairBurst + 1 + time.Since(began)/repairInterval)
	if n := int64(w.repairs.Load() - before); n < 1 || n > most {
		t.Errorf("it was answered %d times, want %d at most", n, most)
	}
}

func TestWhatIsNoneOfWeftsIsNotAnswered(t *testing.T) {
	w := startWatch(t)
	before := w.repairs.Load()
	w.run(t, "sh", "-ec", `
		ip link add elsewhere type bridge
		ip addr add 198.51.100.1/24 dev elsewhere
		ip link set elsewhere up
		ip route add 10.9.9.0/24 dev elsewhere
		ip route add 10.244.1.7 dev elsewhere proto 94
		ip route replace 10.9.9.0/24 dev elsewhere mtu 1300
		ip route add 10.244.2.0/24 dev elsewhere metric 7
		ip route add 10.244.3.0/24 dev elsewhere table 77
		ip route flush table 77
		ip link del elsewhere
		nft add table inet other
		nft add chain inet other weft
		nft add table ip wefts
		nft flush table inet other
		nft delete table inet other`)
	time.Sleep(5 * debounce)
	if n := w.repairs.Load() - before; n != 0 {
		t.Errorf("it was answered by %d repairs", n)
	}
}

// Otherwise each new State would have all routes listed twice.
func TestItsOwnChangesMakeNoRouteDoubtful(t *testing.T) {
	w := startWatch(t)
	for _, n := range []Network{withoutPeer(testNetwork()), testNetwork()} {
		w.apply(t, w.host, n)
		time.Sleep(debounce / 2)
		if w.host.events.routes.Load() {
			t.Error("its own changes are taken for another's")
		}
		w.host.mu.Lock()
		if w.host.held == nil {
			t.Error("it does not know what it has changed")
		}
		w.host.mu.Unlock()
	}
	expect(t, "routes and rules", sorted(w.routing(t)), sorted(testRouting))
}

func withoutPeer(n Network) Network {
	n.PeerCIDRs, n.PeerAddresses, n.Senders = n.PeerCIDRs[2:], n.PeerAddresses[2:], n.Senders[2:]
	n.PeerEndpoints = n.PeerEndpoints[2:]
	return n
}

func TestLostEventsMakeEverythingDoubtful(t *testing.T) {
	h := newHost()
	h.events.routing(nil)
	h.events.tables(nil)
	if !h.events.routes.Load() || !h.events.guard.Load() || len(h.events.some) != 1 {
		t.Error("there is no doubt")
	}
}

// FuzzEvents: a message of whatever kind and content does no harm.
func FuzzEvents(f *testing.F) {
	for _, kind := range []uint16{unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWLINK, unix.RTM_DELADDR, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE} {
		for size := range 40 {
			f.Add(kind, uint16(unix.NLM_F_REPLACE), make([]byte, size))
		}
	}
	f.Fuzz(func(t *testing.T, kind, flags uint16, data []byte) {
		h := newHost()
		h.events.wanted.Store(&held{testNetwork(), 7})
		m := []syscall.NetlinkMessage{{Header: syscall.NlMsghdr{Type: kind, Flags: flags}, Data: data}}
		h.events.routing(m)
		h.events.tables(m)
	})
}

func TestPeersChangeWithoutANewGuardTable(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	host := newHost()
	tables := func() string { return ns.tables(t) }
	handle := func() string { return ns.run(t, "sh", "-c", "nft -a list tables") }
	ns.apply(t, host, testNetwork())
	whole, made := tables(), handle()

	ns.apply(t, host, withoutPeer(testNetwork()))
	less := tables()
	for set, want := range map[string]int{"192.0.2.20": 0, "2001:db8::20": 0, "192.0.2.30": 3, "2001:db8::30": 3} {
		if n := strings.Count(less, set); n != want {
			t.Errorf("%s is there %d times, want %d:\n%s", set, n, want, less)
		}
	}
	// As another weftd would have made it.
	other := newNamespace(t)
	other.openTUN(t, "weft0")
	other.apply(t, newHost(), withoutPeer(testNetwork()))
	expect(t, "the table", other.tables(t), less)

	ns.apply(t, host, testNetwork())
	expect(t, "the table", tables(), whole)
	if now := handle(); now != made {
		t.Errorf("the table was %s and is %s", made, now)
	}
	// Apply still undoes another program's change of the meantime.
	ns.run(t, "nft", "add", "element", "inet", "weft", "senders4", "{ 198.51.100.7 }")
	ns.apply(t, host, withoutPeer(testNetwork()))
	expect(t, "the table", tables(), less)
}

// TestALookAtEverythingThatFailsIsTakenLater: an Apply that was to rely on nothing, and ended
// early, leaves that to the next.
func TestALookAtEverythingThatFailsIsTakenLater(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	host := newHost()
	host.watch(true)
	ns.apply(t, host, testNetwork())
	whole := sorted(ns.routing(t))
	ns.ip(t, "route del 10.244.2.0/24") // without an event
	host.watch(true)
	elsewhere := testNetwork()
	elsewhere.TUN = "weft1"
	if err := ns.tryApply(t, host, elsewhere); err == nil {
		t.Fatal("applied to a device that is not there")
	}
	ns.apply(t, host, testNetwork())
	expect(t, "routes and rules", sorted(ns.routing(t)), whole)
}

// meddled is nft with another program that changes the guard table as soon as weft has.
type meddled struct {
	knftables.Interface
	meddle func()
}

func (m meddled) Run(ctx context.Context, tx *knftables.Transaction) error {
	defer m.meddle()
	return m.Interface.Run(ctx, tx)
}

// TestConcurrentChangesAreNotWefts: another program adds or removes rules between weft's
// change of the table and its look at it. Apply does not take that for its own.
func TestConcurrentChangesAreNotWefts(t *testing.T) {
	for _, change := range []string{"add chain inet weft strange", "flush chain inet weft from_pods", "add element inet weft cluster4 { 198.51.100.0/24 }"} {
		ns := newNamespace(t)
		ns.openTUN(t, "weft0")
		host := newHost()
		tables := func() string { return ns.tables(t) }
		ns.apply(t, host, withoutPeer(testNetwork()))
		less := tables()
		nft := host.guard.nft
		host.guard.nft = meddled{nft, func() { ns.run(t, "sh", "-c", "nft '"+change+"'") }}
		_ = ns.tryApply(t, host, testNetwork()) // an error if it sees that rules are missing
		host.guard.nft = nft
		ns.apply(t, host, withoutPeer(testNetwork()))
		expect(t, "the table after "+change, tables(), less)
	}
}
