package hostnet

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"weft/internal/marks"
)

// rewire puts another device in the place of the node's eth0, which becomes port0. The script
// makes eth0.
func (s *site) rewire(t testing.TB, script string) {
	t.Helper()
	s.node.run(t, "sh", "-ec", `
		ip link set eth0 down; ip link set eth0 name port0; ip address flush dev port0
		sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
		`+script+`
		sysctl -qw net.ipv6.conf.eth0.accept_dad=0
		ip link set port0 up; ip link set eth0 up
		ip address add 192.0.2.1/24 dev eth0; ip address add 2001:db8::1/64 dev eth0 nodad`)
	s.node.apply(t, s.host, s.network) // the new devices don't forward yet
	s.node.awaitPorts(t)
}

// awaitPorts waits until all bridges have carriers, and all ports forward.
func (ns namespace) awaitPorts(t testing.TB) {
	t.Helper()
	ready := eventually(func() bool {
		return !strings.Contains(ns.ip(t, "link show up"), "NO-CARRIER") &&
			!strings.Contains(strings.ReplaceAll(ns.run(t, "bridge", "link"), "state forwarding", ""), " state ")
	})
	if !ready {
		t.Fatalf("the bridges don't come up: %s\n%s", ns.ip(t, "link"), ns.run(t, "bridge", "link"))
	}
}

const (
	onABridge = `ip link add eth0 type bridge; ip link set port0 master eth0`

	// The bridge br1 has port0 and one end of a veth pair.
	besideABridge = `ip link add br1 type bridge; ip link set br1 up; ip link set port0 master br1
		ip link add near type veth peer name far; ip link set near master br1; ip link set near up; ip link set far up
		`
)

// TestGuardVerdictsOnABridge: what is routed meets the verdicts of docs/SECURITY.md where the
// underlay is a bridge too, whatever came over another bridge before.
func TestGuardVerdictsOnABridge(t *testing.T) {
	const off = "; sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"
	for _, tt := range []struct {
		name, script string
		brNetfilter  bool
		heedsMark    bool // the guard, at prerouting
	}{
		{"with br_netfilter", onABridge, true, true},
		{"without br_netfilter", onABridge + off, false, false},
		{"behind a bridge", besideABridge + `ip link add eth0 type bridge; ip link set far master eth0`, true, true},
		{"a veth behind a bridge", besideABridge + `ip link set far down; ip link set far name eth0`, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newBareSite(t)
			s.rewire(t, tt.script)
			r := newVerdictRigAt(t, s)
			r.brNetfilter = tt.brNetfilter
			for _, m := range r.mismatches(t, verdicts(t), bridgedForms, 20) {
				t.Error(m)
			}
			r.node.nft(t, fmt.Sprintf("insert rule bridge weft prerouting meta mark set %#x accept", uint32(marks.DefaultMask)))
			if found := r.mismatches(t, verdicts(t), forms[:1], 1); found != nil != tt.heedsMark {
				t.Errorf("when each frame is marked: %q", found)
			}
		})
	}
}

// TestGuardVerdictsPastPrerouting: a frame that a bridge has for another host, but that the
// kernel routes or delivers nevertheless, gets no better verdict than any other.
func TestGuardVerdictsPastPrerouting(t *testing.T) {
	for _, tt := range []struct {
		name, script, mac string
		reach             []string // verdicts of the underlay's packets that must be among them
	}{
		{"another program's translation", onABridge, "02:00:00:00:00:99", []string{"pod", dropForeignSource}},
		{"broadcasts", onABridge, "ff:ff:ff:ff:ff:ff", []string{"pod", "node", dropForeignSource, dropBare, dropPathMTU}},
		{"a macvlan upon the bridge", `ip link add br1 type bridge; ip link set br1 up; ip link set port0 master br1
			ip link add link br1 name eth0 type macvlan`, "", []string{"pod", "node", dropForeignSource, dropBare, dropLocalSender}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newBareSite(t)
			s.rewire(t, tt.script)
			r := newVerdictRigAt(t, s)
			r.brNetfilter, r.silent = true, true
			if tt.mac != "" {
				mac, err := net.ParseMAC(tt.mac)
				check(t, err)
				copy(r.frames["underlay"], mac)
			}
			for _, m := range r.mismatches(t, verdicts(t), bridgedForms, 20) {
				t.Error(m)
			}
			seen := map[string]bool{}
			for _, family := range []string{"4", "6"} {
				for _, c := range allClasses(family) {
					if c.from == "underlay" && c.form == "whole" {
						seen[r.becomes(t, c)] = true
					}
				}
			}
			for _, verdict := range tt.reach {
				if !seen[verdict] {
					t.Errorf("no packet met %s: %v", verdict, seen)
				}
			}
			if tt.mac == "" {
				r.answersAreJudged(t)
			}
			r.node.nft(t, "flush chain inet weft from_bridge")
			if r.mismatches(t, verdicts(t), forms[:1], 1) == nil {
				t.Error("not found: what a bridge hands up is not judged")
			}
		})
	}
}

// answersAreJudged: a forged answer in a peer's name, to what a pod has sent through the
// overlay, reaches no pod.
func (r *verdictRig) answersAreJudged(t *testing.T) {
	t.Helper()
	for _, a := range addressings {
		before := r.counters(t)[dropBare]
		r.send(t, "pod", ipPacket(a.pod1, a.remoteNode, unix.IPPROTO_UDP, udpTo(a.pod1, a.remoteNode, 4001, 4002), testClass, nil))
		if !eventually(func() bool { places, _ := r.arrived(t); return slices.Contains(places, "overlay") }) {
			t.Fatalf("IPv%s: nothing came into the overlay", a.family)
		}
		r.send(t, "underlay", ipPacket(a.remoteNode, a.pod1, unix.IPPROTO_UDP, udpTo(a.remoteNode, a.pod1, 4002, 4001), testClass, nil))
		if !eventually(func() bool { return r.counters(t)[dropBare] == before+1 }) {
			places, _ := r.arrived(t)
			t.Errorf("IPv%s: a forged answer is not dropped as %s, it is at %s", a.family, dropBare, places)
		}
	}
}

// bridgedSite has two VMs at a bridge of the node that use whatever addresses they like, and
// the translations of another program.
type bridgedSite struct {
	*site
	vms [2]namespace
}

// bridgedNetworks are of the node's own pod CIDR, a peer's, neither's, the nodes', the outside
// and Docker's. The first VM has these addresses, the second one those that follow.
var bridgedNetworks = addresses("10.244.1.64", "10.244.2.64", "10.244.77.64", "192.0.2.20", "198.51.100.64", "172.17.0.64",
	"fd00:244:0:1::64", "fd00:244:0:2::64", "fd00:244:0:77::64", "2001:db8::20", "2001:db8:5::64")

func newBridgedSite(t *testing.T) bridgedSite {
	t.Helper()
	b := bridgedSite{site: newBareSite(t)}
	b.node.run(t, "sh", "-ec", `ip link add vms type bridge; ip link set vms up; ip address add 172.17.0.1/16 dev vms
		sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1`)
	for i := range b.vms {
		b.vms[i] = newNamespace(t)
		name := fmt.Sprintf("vm%d", i)
		veth(t, b.node, name, 0, b.vms[i], "eth0")
		b.node.ip(t, "link set "+name+" master vms")
		b.vms[i].run(t, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0")
		for _, a := range bridgedNetworks {
			if i == 1 {
				a = a.Next()
			}
			b.vms[i].ip(t, fmt.Sprintf("address add %s/%d dev eth0 %s", a, a.BitLen(), map[bool]string{true: "nodad"}[a.Is6()]))
		}
		b.vms[i].ip(t, "route add default dev eth0")
		b.vms[i].ip(t, "-6 route add default dev eth0")
	}
	// As Docker has it, with a port that is published.
	b.node.nft(t, `table inet docker {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			fib daddr type local tcp dport 80 dnat ip to 172.17.0.65:80
		}
		chain postrouting {
			type nat hook postrouting priority srcnat;
			ip saddr 172.17.0.0/16 oifname != "vms" masquerade
		}
	}
	table inet seen {
		counter frames { }
		chain forward { type filter hook forward priority 10; iifname "vms" oifname "vms" counter name frames; }
	}`)
	b.node.awaitPorts(t)
	return b
}

// connects makes a TCP connection from an address of the first VM to one of the second, which
// must see it come from there.
func (b bridgedSite) connects(t testing.TB, from, to netip.Addr) error {
	t.Helper()
	var listener net.Listener
	b.vms[1].do(t, func() {
		var err error
		listener, err = net.Listen("tcp", netip.AddrPortFrom(to, 80).String())
		check(t, err)
	})
	defer listener.Close()
	dialer := net.Dialer{Timeout: time.Minute, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	var conn net.Conn
	var err error
	b.vms[0].do(t, func() { conn, err = dialer.DialContext(t.Context(), "tcp", listener.Addr().String()) })
	if err != nil {
		return err
	}
	defer conn.Close()
	accepted, err := listener.Accept()
	check(t, err)
	defer accepted.Close()
	if got := accepted.RemoteAddr().String(); got != conn.LocalAddr().String() {
		return fmt.Errorf("%s comes as %s", conn.LocalAddr(), got)
	}
	return nil
}

// TestBridgedFramesPass: what a bridge forwards between its ports is not the overlay's, whatever
// addresses it has, and though br_netfilter shows it to the guard.
func TestBridgedFramesPass(t *testing.T) {
	b := newBridgedSite(t)
	// While the guard is replaced, two of its tables stand.
	next, err := knftables.New(knftables.InetFamily, marks.NextTable)
	check(t, err)
	b.node.do(t, func() { check(t, next.Run(t.Context(), ruleset(next.NewTransaction(), b.network, nil))) })
	// A program that restores its connections' marks, and thinks that all bits are its own.
	b.node.nft(t, "table inet restorer { chain prerouting { type filter hook prerouting priority mangle; meta mark set ct mark; }; }")
	before := b.node.drops(t)
	for _, to := range bridgedNetworks {
		echo(t, b.vms[1], to.Next(), b.network.Port)
		for _, from := range bridgedNetworks {
			if from.Is4() != to.Is4() {
				continue
			}
			if err := b.connects(t, from, to.Next()); err != nil {
				t.Fatalf("from %s to %s: %v", from, to.Next(), err)
			}
			sees(t, b.vms[0], from, to.Next(), b.network.Port, from)
		}
	}
	for name, n := range b.node.drops(t) {
		if n != before[name] {
			t.Errorf("%s counts %d packets", name, n-before[name])
		}
	}
	if counter := b.node.run(t, "nft", "list counter inet seen frames"); strings.Contains(counter, "packets 0 ") {
		t.Errorf("br_netfilter has shown nothing: %s", counter)
	}
}

// TestTranslatedFramesAreJudged: a frame for another host of the bridge that another program's
// translation has the kernel route is routed, and so the guard drops what it must.
func TestTranslatedFramesAreJudged(t *testing.T) {
	b := newBridgedSite(t)
	far := newNamespace(t)
	b.node.run(t, "sh", "-ec", "ip link add others type bridge; ip link set others up")
	veth(t, b.node, "far", 0, far, "eth0")
	b.node.ip(t, "link set far master others")
	b.node.apply(t, b.host, b.network)
	for _, tt := range []struct{ network, node, far, pod, outside, vm, foreign string }{
		{"ip", "198.18.0.1/24", "198.18.0.2", "10.244.2.9", "203.0.113.7", "198.51.100.64", "10.244.77.64"},
		{"ip6", "2001:db8:18::1/64", "2001:db8:18::2", "fd00:244:0:2::9", "2001:db8:7::7", "2001:db8:5::64", "fd00:244:0:77::64"},
	} {
		dad := map[string]string{"ip6": " nodad"}[tt.network]
		b.node.ip(t, "address add "+tt.node+" dev others"+dad)
		b.node.ip(t, "route add "+tt.vm+" dev vms")
		_, length, _ := strings.Cut(tt.node, "/")
		far.ip(t, "address add "+tt.far+"/"+length+" dev eth0"+dad)
		far.ip(t, "route add "+tt.vm+" via "+strings.TrimSuffix(tt.node, "/"+length))
		echo(t, far, netip.MustParseAddr(tt.far), echoPort)
		b.node.nft(t, fmt.Sprintf(`table inet docker { chain prerouting {
			%[1]s daddr { %[2]s, %[3]s } dnat %[1]s to %[4]s
		}
		}`, tt.network, tt.outside, tt.pod, tt.far))
		for _, to := range []string{tt.outside, tt.pod} {
			b.vms[0].ip(t, "neigh replace "+to+" lladdr 02:00:00:00:00:99 dev eth0 nud permanent")
		}
		vm, foreign, outside, pod := netip.MustParseAddr(tt.vm), netip.MustParseAddr(tt.foreign), netip.MustParseAddr(tt.outside), netip.MustParseAddr(tt.pod)
		b.node.awaitPorts(t)
		sees(t, b.vms[0], vm, outside, echoPort, vm)
		b.dropped(t, b.vms[0], foreign, outside, echoPort, dropForeignSource)
		b.dropped(t, b.vms[0], vm, pod, echoPort, dropBare)
	}
}

// TestNoTableForBridges: a kernel whose nftables knows no bridges, or an nft that fails for
// them, costs bridged frames only. The guard stands, and they don't pass it.
func TestNoTableForBridges(t *testing.T) {
	nft, err := exec.LookPath("nft")
	check(t, err)
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for fault, passes := range map[string]bool{"Operation not supported": false, "Resource busy": true} {
		var out bytes.Buffer
		host := New(slog.New(slog.NewTextHandler(&out, nil)))
		check(t, os.WriteFile(dir+"/nft", fmt.Appendf(nil, `#!/bin/sh
			case "$*" in *-f*)
				in=$(cat)
				case "$in" in *"table bridge"*) echo "Error: Could not process rule: %s" >&2; exit 1 ;; esac
				echo "$in" | exec %[2]s "$@" ;;
			esac
			exec %[2]s "$@"`, fault, nft), 0o700))
		ns := newNamespace(t)
		ns.openTUN(t, "weft0")
		ns.protect(t, host, configured())
		ns.apply(t, host, testNetwork())
		if host.Guard() != ns.identity(t) || host.Guard().Rules == 0 {
			t.Errorf("%s: no guard stands", fault)
		}
		if n := strings.Count(out.String(), "bridged frames count as routed"); n != 1 {
			t.Errorf("%s: %d warnings:\n%s", fault, n, &out)
		}
		check(t, os.WriteFile(dir+"/nft", fmt.Appendf(nil, `#!/bin/sh
			exec %s "$@"`, nft), 0o700))
		ns.apply(t, host, testNetwork())
		tables := ns.run(t, "nft", "list tables")
		if got := strings.Contains(tables, "table bridge weft"); got != passes {
			t.Errorf("%s is over, and there are %s", fault, tables)
		}
		ns.do(t, func() { check(t, host.Remove(t.Context())) })
	}
}

// TestBridgedFramesWithoutTheTable: without the bridge table no frame with the cluster's
// addresses passes the guard.
func TestBridgedFramesWithoutTheTable(t *testing.T) {
	b := newBridgedSite(t)
	b.node.nft(t, "delete table bridge weft")
	for _, ends := range [][2]string{{"10.244.77.64", "198.51.100.64"}, {"fd00:244:0:77::64", "2001:db8:5::64"}} {
		cluster, outside := netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
		for _, to := range []netip.Addr{cluster.Next(), outside.Next()} { // whose answers are dropped too
			b.vms[0].ip(t, "neigh replace "+to.String()+" lladdr 02:00:00:00:00:99 dev eth0 nud permanent")
		}
		b.dropped(t, b.vms[0], cluster, outside.Next(), echoPort, dropForeignSource)
		b.dropped(t, b.vms[0], outside, cluster.Next(), echoPort, dropBare)
	}
}
