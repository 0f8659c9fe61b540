package hostcheck

import (
	"net/netip"
	"strings"
	"testing"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

var host = Host{TUN: "weft0", Port: 9338, ClusterCIDRs: prefixes("10.244.0.0/16", "fd00:244::/48"), PodCIDRs: prefixes("10.244.1.0/24", "fd00:244:0:1::/64")}

// Docker's chains, as iptables-save prints them.
const docker = `*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -j DROP
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-USER - [0:0]
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-CT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`

// ufw's chains, of which most are left out.
const ufw = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:ufw-before-input - [0:0]
:ufw-not-local - [0:0]
:ufw-user-forward - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-user-input
-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A FORWARD -j ufw-user-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
`

// TestIPTablesThatDropAreNamed gives the rules that iptables-save prints.
func TestIPTablesThatDropAreNamed(t *testing.T) {
	with := func(rules, more string) string { return strings.ReplaceAll(rules, "COMMIT\n", more+"COMMIT\n") }
	for _, tt := range []struct {
		name, rules string
		want        []string // in the texts of the warnings, one each
	}{
		{"nothing", "*filter\n:FORWARD ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\nCOMMIT\n", nil},
		{"Docker", docker, []string{"iptables chain FORWARD drops packets between pods of this node, from pods to other nodes' pods, " +
			"from other nodes' pods to pods, from pods to the outside: its policy is drop; run iptables -I DOCKER-USER -i weft+ -j ACCEPT; iptables -I DOCKER-USER -o weft+ -j ACCEPT; or set host.acceptForward: true"}},
		{"Docker, half a remedy", with(docker, "-A DOCKER-USER -i weft0 -j ACCEPT\n-A DOCKER-USER -o weft0 -j ACCEPT\n"),
			[]string{"drops packets between pods of this node, from pods to the outside: its policy is drop;"}},
		{"Docker, with the remedy", with(docker, "-A DOCKER-USER -i weft+ -j ACCEPT\n-A DOCKER-USER -o weft+ -j ACCEPT\n"), nil},
		{"Docker, pods by address", with(docker, "-A DOCKER-USER -s 10.244.0.0/16 -j ACCEPT\n-A DOCKER-USER -d 10.244.0.0/16 -j ACCEPT\n"), nil},
		{"a condition that is not understood", with(docker, "-A DOCKER-USER -m bpf --bytecode 1 -j ACCEPT\n"), nil},
		{"a rule that drops pods", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 10.0.0.0/8 -i weft+ ! -o weft+ -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n",
			[]string{"drops packets from pods to the outside: rule -A FORWARD -s 10.0.0.0/8 -i weft+ ! -o weft+ -j REJECT --reject-with icmp-port-unreachable; run"}},
		{"ufw", ufw, []string{
			"iptables chain INPUT drops packets from pods to this node, from other nodes to weft's port: its policy is drop; run ufw allow 9338/udp; ufw allow from 10.244.0.0/16",
			"iptables chain FORWARD drops packets between pods",
		}},
		{"ufw with the remedy", with(strings.Replace(ufw, "FORWARD DROP", "FORWARD ACCEPT", 1), "-A ufw-user-input -p udp -m udp --dport 9338 -j ACCEPT\n-A ufw-user-input -s 10.244.0.0/16 -j ACCEPT\n"), nil},
		{"only new connections", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -i weft+ -j ACCEPT\n" +
			"-A INPUT -p udp -m state --state NEW -m udp --dport 9338 -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n",
			[]string{"iptables chain INPUT drops packets from other nodes to weft's port: rule -A INPUT -j REJECT --reject-with icmp-host-prohibited; " +
				"run iptables -I INPUT -p udp --dport 9338 -j ACCEPT, without a connection state"}},
	} {
		expectTexts(t, tt.name, parseIPTables("ip", tt.rules, false), tt.want)
	}
	legacy := host.inspect(parseIPTables("ip6", docker, true))
	if len(legacy) != 1 || !strings.HasPrefix(legacy[0].Text, "ip6tables-legacy chain FORWARD ") || !strings.Contains(legacy[0].Text, "run ip6tables-legacy -I DOCKER-USER") {
		t.Errorf("iptables-legacy: %v", legacy)
	}
}

func expectTexts(t *testing.T, name string, all tables, want []string) {
	t.Helper()
	got := host.inspect(all)
	if len(got) != len(want) {
		t.Errorf("%s: %d warnings, want %d: %v", name, len(got), len(want), got)
		return
	}
	for i, w := range got {
		if !strings.Contains(w.Text, want[i]) {
			t.Errorf("%s:\n%s\nwant\n%s", name, w.Text, want[i])
		}
	}
}

func TestForeignRoutingRulesAreNamed(t *testing.T) {
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	for _, tt := range []struct {
		name string
		rule routingRule
		want bool
	}{
		{"an exit node", routingRule{priority: 5000, table: 52, routes: []netip.Prefix{any4}}, true},
		{"routes to pods", routingRule{priority: 5000, table: 52, routes: prefixes("10.244.2.0/24")}, true},
		{"other routes", routingRule{priority: 5000, table: 52, routes: prefixes("100.64.0.0/10")}, false},
		{"from the node's address", routingRule{priority: 100, table: 100, source: netip.MustParsePrefix("192.168.77.1/32"), routes: []netip.Prefix{any4}}, false},
		{"from pods", routingRule{priority: 100, table: 100, source: netip.MustParsePrefix("10.0.0.0/8"), routes: []netip.Prefix{any4}}, true},
		{"with a mark", routingRule{priority: 100, table: 100, marked: true, routes: []netip.Prefix{any4}}, false},
		{"by another interface", routingRule{priority: 100, table: 100, in: "docker0", routes: []netip.Prefix{any4}}, false},
		{"an empty table", routingRule{priority: 100, table: 100}, false},
	} {
		found := host.inspectRules([]routingRule{tt.rule})
		if len(found) > 0 != tt.want {
			t.Errorf("%s: %v", tt.name, found)
		}
	}
}
