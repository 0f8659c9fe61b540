package hostcheck

import (
	"os/exec"
	"strings"
	"testing"

	"weft/internal/testnet"
)

func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

const firewalld = `nft -f - <<'X'
table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority 10; policy accept;
		ct state { established, related } accept
		iifname "lo" accept
		ct state invalid drop
		iifname vmap { "eth-uplink" : jump filter_IN_public }
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ip6 daddr { ::/96, 2002::/24 } reject
		jump filter_FWD_public
		reject with icmpx admin-prohibited
	}
	chain filter_FWD_public { meta l4proto { icmp, ipv6-icmp } accept; }
	chain filter_IN_public { tcp dport 22 ct state { new, untracked } accept; udp dport 9338 ct state new accept; }
}
X`

// TestFiltersOfAHostAreFound has the kernel and the programs list real tables.
func TestFiltersOfAHostAreFound(t *testing.T) {
	const pods = "between pods of this node, from pods to other nodes' pods, from other nodes' pods to pods, from pods to the outside"
	const back = ", from the outside back to pods"
	for _, tt := range []struct {
		name, script string
		want         []string
	}{
		{"nothing", "true", nil},
		{"weft's own table", "nft add table inet weft; nft 'add chain inet weft f { type filter hook forward priority 0; policy drop; }'", nil},
		{"iptables", "iptables-nft -P FORWARD DROP", []string{"iptables chain FORWARD drops packets " + pods + back + ": its policy is drop"}},
		{"ip6tables, half a remedy", "ip6tables-nft -P FORWARD DROP; ip6tables-nft -A FORWARD -i weft+ -j ACCEPT",
			[]string{"ip6tables chain FORWARD drops packets from the outside back to pods: its policy is drop"}},
		{"a chain of nftables", `nft add table ip f; nft 'add chain ip f F { type filter hook forward priority 0; policy drop; }'
			nft add rule ip f F oifname weft0 accept; nft add rule ip f F iifname weft0 accept`,
			[]string{`nftables chain ip f F (hook forward) drops packets between pods of this node, from pods to the outside, from the outside back to pods: its policy is drop; ` +
				`run nft insert rule ip f F iifname "weft*" accept; nft insert rule ip f F oifname "weft*" accept; or set host.acceptForward: true and host.acceptForwardChain: "ip f F"`}},
		{"the remedy, and sets", `nft -f - <<'X'
			table inet f {
				set pods { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 } }
				set pods6 { type ipv6_addr; flags interval; elements = { fd00:244::/48 } }
				chain F { type filter hook forward priority 0; policy drop; ip saddr @pods accept; ip daddr @pods accept; ip6 saddr @pods6 accept; ip6 daddr @pods6 accept; }
			}
X`, nil},
		{"a chain that accepts pings only", `nft add table ip f; nft 'add chain ip f F { type filter hook forward priority 0; policy drop; }'
			nft add rule ip f F icmp type echo-request accept`,
			[]string{"nftables chain ip f F (hook forward) drops packets between pods of this node"}},
		{"firewalld", firewalld, []string{
			"firewalld (chain inet firewalld filter_FORWARD) drops packets " + pods + ": rule",
			"firewalld (chain inet firewalld filter_INPUT) drops packets from pods to this node, from other nodes to weft's port: rule with handle",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testnet.InNewNamespace(t)
			shell(t, tt.script)
			got := host.Look(t.Context())
			if len(got) != len(tt.want) {
				t.Fatalf("%d warnings, want %d: %v", len(got), len(tt.want), got)
			}
			for i, w := range got {
				if !strings.HasPrefix(w.Text, tt.want[i]) {
					t.Errorf("%s\nwant\n%s", w.Text, tt.want[i])
				}
			}
		})
	}
}

// TestRulesOfAHostAreFound has the kernel list real rules and routes, in both families.
func TestRulesOfAHostAreFound(t *testing.T) {
	const vpn = "ip $f route add default dev vpn table 220\n"
	for _, tt := range []struct {
		name, script string
		want         bool
	}{
		{"a default route", vpn + "ip $f rule add pref 220 lookup 220", true},
		{"a default route that the rule suppresses", vpn + "ip $f rule add pref 220 lookup 220 suppress_prefixlength 0", false},
		{"a default route behind the main table's other routes", vpn + "ip $f rule add pref 100 lookup main suppress_prefixlength 0\nip $f rule add pref 220 lookup 220", false},
		{"a default route behind the main table, for some packets", vpn + "ip $f rule add pref 100 fwmark 0/1 lookup main\nip $f rule add pref 220 lookup 220", true},
		{"what is not for the pods", vpn + "ip $f rule add pref 220 not to $c lookup 220", false},
		{"a default route after weft's rules", vpn + "ip $f rule add pref 5210 lookup 220", false},
	} {
		for family, cluster := range map[string]string{"-4": "10.244.0.0/16", "-6": "fd00:244::/48"} {
			t.Run(tt.name+", "+cluster, func(t *testing.T) {
				testnet.InNewNamespace(t)
				shell(t, "f="+family+" c="+cluster+"\nip link add vpn type veth peer name far; ip link set vpn up\n"+tt.script)
				rules, err := readRules()
				found := host.inspectRules(rules)
				if err != nil || len(found) > 0 != tt.want || tt.want && !strings.Contains(found[0].Text, "sends packets to "+cluster) {
					t.Errorf("%v, %v", found, err)
				}
			})
		}
	}
}

// TestAcceptedForwardingIsTakenBack adds weft's rules twice, and removes them.
func TestAcceptedForwardingIsTakenBack(t *testing.T) {
	testnet.InNewNamespace(t)
	shell(t, `iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER
		ip6tables-nft -P FORWARD DROP
		nft add table inet f; nft 'add chain inet f F { type filter hook forward priority 0; policy drop; }'`)
	state := func() string {
		return shell(t, "iptables-nft -S; ip6tables-nft -S; nft --stateless list table inet f")
	}
	before := state()
	h := host
	h.AcceptChain = "inet f F"
	if found := h.Look(t.Context()); len(found) != 3 {
		t.Fatalf("found %v", found)
	} else if err := h.AcceptForward(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	after := state()
	if found := h.Look(t.Context()); len(found) != 0 {
		t.Errorf("still %v\n%s", found, after)
	}
	if err := h.AcceptForward(t.Context(), h.Look(t.Context())); err != nil || state() != after {
		t.Errorf("the second time it changed something: %v\n%s", err, state())
	}
	if !strings.Contains(after, "-A DOCKER-USER -o weft+") {
		t.Errorf("it is not in Docker's chain for others:\n%s", after)
	}
	if err := Remove(t.Context()); err != nil || state() != before {
		t.Errorf("removed: %v\n%s\nwant\n%s", err, state(), before)
	}
}
