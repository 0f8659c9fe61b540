package config

import "testing"

func TestMistakesInTheFile(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"misspelt key", minimal + "tun:\n  drivr: water\n", `weft.yaml:4: tun.drivr: unknown key; did you mean tun.driver?`},
		{"misspelt group", minimal + "tunn: {driver: water}\n", `weft.yaml:3: tunn: unknown key; did you mean tun?`},
		{"other case", "node: node1\nclustercidrs: [10.244.0.0/16]\nencapsulation: vxlan\n", `weft.yaml: clusterCIDRs: missing; write the ranges that all pods' addresses come from, such as clusterCIDRs: [10.244.0.0/16]
weft.yaml:2: clustercidrs: unknown key; did you mean clusterCIDRs?`},
		{"key with its earlier name", minimal + "ipam: {rest: 2m}\n", `weft.yaml:3: ipam.rest: unknown key; renamed to ipam.cooldown`},
		{"key outside its group", minimal + "vni: 7\n", `weft.yaml:3: vni: unknown key; did you mean vxlan.vni?`},
		{"key that is like no other", minimal + "colour: blue\n", `weft.yaml:3: colour: unknown key; remove it`},
		{"another control source", minimal + "control: {consul: {endpoints: ['http://[::1]:2379']}}\n", `weft.yaml:3: control.consul: unknown key; remove it`},
		{"key that would garble the message", minimal + "\"a\\nb\\e[31m\": 1\n", `weft.yaml:3: "a\nb\x1b[31m": unknown key; remove it`},
		{"duplicate key", minimal + "listen: 0.0.0.0:1\nlisten: 0.0.0.0:2\n", `weft.yaml:4: listen: already written in line 3; remove one of the two`},
		{"duplicate key in a group", minimal + "tun:\n  mtu: 1400\n  name: a\n  mtu: 1500\n", `weft.yaml:6: tun.mtu: already written in line 4; remove one of the two`},
		{"no value", minimal + "tun:\n", `weft.yaml:3: tun: has no value; write one or remove the key`},
		{"no node", "node: ~\nclusterCIDRs: [10.244.0.0/16]\nencapsulation: vxlan\n", `weft.yaml:1: node: has no value; write one or remove the key`},
		{"group that is a value", minimal + "tun: weft0\n", `weft.yaml:3: tun: must be a mapping, not a single value; write keys with their values`},
		{"value that is a group", minimal + "listen: {port: 9338}\n", `weft.yaml:3: listen: must be a single value, not a mapping; write the value alone, in quotes if it has a colon at its end`},
		{"list that is a value", "node: node1\nclusterCIDRs: 10.244.0.0/16\nencapsulation: vxlan\n", `weft.yaml:2: clusterCIDRs: must be a list, not a single value; write clusterCIDRs: [10.244.0.0/16]`},
		{"secrets that are no list", minimal + "control: {etcd: {endpoints: 'https://root:pw@etcd:2379'}}\ncni: {extra: '{\"token\": \"geheim\"}'}\n", `weft.yaml:3: control.etcd.endpoints: must be a list, not a single value; write its items with a dash before each
weft.yaml:4: cni.extra: must be a list, not a single value; write its items with a dash before each`},
		{"IPv6 list that is a value", "node: node1\nclusterCIDRs: fd00::/48\nencapsulation: vxlan\n", `weft.yaml:2: clusterCIDRs: must be a list, not a single value; write clusterCIDRs: ["fd00::/48"]`},
		{"list in the list", "node: node1\nclusterCIDRs: [[10.244.0.0/16]]\nencapsulation: vxlan\n", `weft.yaml:2: clusterCIDRs[0]: must be a single value, not a list; write the value alone, in quotes if it has a colon at its end`},
		{"file that is a list", "- node: node1\n", `weft.yaml:1: must be a mapping, not a list; write keys with their values`},
		{"empty file", "", `weft.yaml: clusterCIDRs: missing; write the ranges that all pods' addresses come from, such as clusterCIDRs: [10.244.0.0/16]`},
		{"empty list", "node: node1\nclusterCIDRs: []\nencapsulation: vxlan\n", `weft.yaml:2: clusterCIDRs: the list is empty; write the ranges that all pods' addresses come from, such as clusterCIDRs: [10.244.0.0/16]`},
		{"key file", minimal + "keyFile: node.key\n", `weft.yaml:3: keyFile: "node.key" is not an absolute path; write it with all folders from / on`},
		{"unknown encapsulation", "node: node1\nclusterCIDRs: [10.244.0.0/16]\nencapsulation: geneve\n", `weft.yaml:3: encapsulation: unknown encapsulation "geneve"; write sealed, or vxlan if packets may cross the underlay unencrypted`},
		{"node name", "node: Node_1\nclusterCIDRs: [10.244.0.0/16]\nencapsulation: vxlan\n", `weft.yaml:1: node: "Node_1" is not a valid node name; use lower-case letters, digits, '-' and '.', with a letter or digit at both ends of every part`},
		{"cluster CIDRs", `
node: node1
encapsulation: vxlan
clusterCIDRs:
- 10.244.1.7/16
- 10.0.0.0
- fd00:244::
- ::ffff:10.244.0.0/112
- fd00:244::1/48
- 10.0.0.0/33
- pods
- 10.1.0.0/16
- 10.1.128.0/17
- 127.0.0.0/16
- 0.0.0.0/0
- fe80::/64
- ~
`, `weft.yaml:5: clusterCIDRs[0]: 10.244.1.7/16 has bits set behind its length; write 10.244.0.0/16
weft.yaml:6: clusterCIDRs[1]: 10.0.0.0 has no prefix length; write it like 10.0.0.0/24
weft.yaml:7: clusterCIDRs[2]."fd00:244:": has no value; write one or remove the key
weft.yaml:7: clusterCIDRs[2]: must be a single value, not a mapping; write the value alone, in quotes if it has a colon at its end
weft.yaml:8: clusterCIDRs[3]: ::ffff:10.244.0.0/112 is IPv4-mapped; write 10.244.0.0/16
weft.yaml:9: clusterCIDRs[4]: fd00:244::1/48 has bits set behind its length; write fd00:244::/48
weft.yaml:10: clusterCIDRs[5]: "10.0.0.0/33" is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48
weft.yaml:11: clusterCIDRs[6]: "pods" is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48
weft.yaml:13: clusterCIDRs[8]: 10.1.128.0/17 overlaps 10.1.0.0/16; remove one of them
weft.yaml:14: clusterCIDRs[9]: 127.0.0.0/16 overlaps 127.0.0.0/8 (loopback); use a range such as 10.244.0.0/16 or fd00:244::/48
weft.yaml:15: clusterCIDRs[10]: 0.0.0.0/0 overlaps 0.0.0.0/8 (this network); use a range such as 10.244.0.0/16 or fd00:244::/48
weft.yaml:16: clusterCIDRs[11]: fe80::/64 overlaps fe80::/10 (link-local); use a range such as 10.244.0.0/16 or fd00:244::/48
weft.yaml:17: clusterCIDRs[12]: has no value; write one or remove the key`},
		{"listen", minimal + "listen: :9338\n", `weft.yaml:3: listen: ":9338" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338`},
		{"listen without port", minimal + "listen: 192.168.77.1\n", `weft.yaml:3: listen: 192.168.77.1 has no port; write it like 192.168.77.1:9338`},
		{"listen on port 0", minimal + "listen: 0.0.0.0:0\n", `weft.yaml:3: listen: 0.0.0.0:0 has port 0; write a port from 1 to 65535`},
		{"listen on a multicast address", minimal + "listen: 239.0.0.1:9338\n", `weft.yaml:3: listen: 239.0.0.1:9338 is multicast; write an address of this node`},
		{"listen on an IPv4-mapped address", minimal + "listen: '[::ffff:192.168.77.1]:9338'\n", `weft.yaml:3: listen: [::ffff:192.168.77.1]:9338 is IPv4-mapped; write 192.168.77.1:9338`},
		{"listen with a zone", minimal + "listen: '[fe80::1%eth0]:9338'\n", `weft.yaml:3: listen: "[fe80::1%eth0]:9338" has a zone; use an address that needs none`},
		{"tun", minimal + "tun:\n  driver: superpackets\n  name: a-name-too-long0\n  lanes: 17\n  mtu: 575\n", `weft.yaml:4: tun.driver: unknown driver "superpackets"; write superpacket, wireguard or water
weft.yaml:5: tun.name: "a-name-too-long0" is not a valid device name; write at most 15 letters, digits, '_', '.' and '-', such as weft0
weft.yaml:6: tun.lanes: "17" is not a whole number from 0 to 16; write one
weft.yaml:7: tun.mtu: "575" is not a whole number from 576 to 65000; write one, or 0 for the underlay's MTU less the overhead`},
		{"tun, with other mistakes", minimal + "tun: {driver: '', name: weft/0, lanes: four, mtu: 65001}\n", `weft.yaml:3: tun.driver: unknown driver ""; write superpacket, wireguard or water
weft.yaml:3: tun.name: "weft/0" is not a valid device name; write at most 15 letters, digits, '_', '.' and '-', such as weft0
weft.yaml:3: tun.lanes: "four" is not a whole number from 0 to 16; write one
weft.yaml:3: tun.mtu: "65001" is not a whole number from 576 to 65000; write one, or 0 for the underlay's MTU less the overhead`},
		{"tun named like sysctl's default", minimal + "tun: {name: default}\n", `weft.yaml:3: tun.name: "default" is not a valid device name; write at most 15 letters, digits, '_', '.' and '-', such as weft0`},
		{"numbers that YAML has but weft has not", minimal + "tun: {lanes: 0x4, mtu: 1_400}\nvxlan: {vni: 1e3}\n", `weft.yaml:3: tun.lanes: "0x4" is not a whole number from 0 to 16; write one
weft.yaml:3: tun.mtu: "1_400" is not a whole number from 576 to 65000; write one, or 0 for the underlay's MTU less the overhead
weft.yaml:4: vxlan.vni: "1e3" is not a whole number from 0 to 16777215; write one`},
		{"vni", minimal + "vxlan: {vni: 16777216}\n", `weft.yaml:3: vxlan.vni: "16777216" is not a whole number from 0 to 16777215; write one`},
		{"an MTU that IPv6 can't use", minimal + "tun: {mtu: 1279}\n", `weft.yaml:3: tun.mtu: 1279 is too small for IPv6, which needs 1280 (RFC 8200 section 5); write a larger one, or remove fd00:244::/48 from clusterCIDRs`},
		{"a choice that there is not", minimal + "udp: {gso: maybe}\nmetrics: {page: loopback}\n", `weft.yaml:3: udp.gso: "maybe" is not a valid value; write auto, on or off
weft.yaml:4: metrics.page: "loopback" is not a valid value; write auto, on or off`},
		{"negative number", minimal + "vxlan: {vni: -1}\n", `weft.yaml:3: vxlan.vni: "-1" is not a whole number from 0 to 16777215; write one`},
		{"relative paths", minimal + "stateDir: state\nrunDir: ./run\ncontrol: {file: nodes.yaml}\ncni: {confDir: ''}\n", `weft.yaml:3: stateDir: "state" is not an absolute path; write it with all folders from / on
weft.yaml:4: runDir: "./run" is not an absolute path; write it with all folders from / on
weft.yaml:5: control.file: "nodes.yaml" is not an absolute path; write it with all folders from / on
weft.yaml:6: cni.confDir: "" is not an absolute path; write it with all folders from / on`},
		{"network name", minimal + "cni: {name: ../weft}\n", `weft.yaml:3: cni.name: "../weft" is not a valid network name; write at most 63 letters, digits, '_', '.' and '-', such as weft`},
		{"ipam", minimal + "ipam:\n  cooldown: '120'\n  reserved: [10.1.0.1/24, 10.1.0.300]\n", `weft.yaml:4: ipam.cooldown: "120" is not a number of whole seconds up to a day; write one with its unit, such as 120s or 2m
weft.yaml:5: ipam.reserved[0]: 10.1.0.1/24 has bits set behind its length; write 10.1.0.0/24; or a single address
weft.yaml:5: ipam.reserved[1]: "10.1.0.300" is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48; or a single address`},
		{"chain", minimal + "cni: {binDir: bin, chain: [../portmap, portmap, weft-cni, '', tuning, portmap]}\n", `weft.yaml:3: cni.binDir: "bin" is not an absolute path; write it with all folders from / on
weft.yaml:3: cni.chain[0]: "../portmap" is not a valid plugin name; write at most 63 letters, digits, '_', '.' and '-', such as portmap, and its folder under cni.binDir
weft.yaml:3: cni.chain[2]: weft-cni is the first plugin in any case; remove it from the list of those behind it
weft.yaml:3: cni.chain[3]: "" is not a valid plugin name; write at most 63 letters, digits, '_', '.' and '-', such as portmap, and its folder under cni.binDir
weft.yaml:3: cni.chain[5]: portmap is in the list already; remove one of the two`},
		{"extra entries", minimal + "cni: {chain: [portmap], extra: [{type: ../x}, {kind: x}, {type: 7}, x, {type: weft-cni}, {type: portmap, snat: false}]}\n", `weft.yaml:3: cni.extra[3]: must be a mapping, not a single value; write keys with their values
weft.yaml:3: cni.extra[0]: "../x" is not a valid plugin name; write at most 63 letters, digits, '_', '.' and '-', such as portmap, and its folder under cni.binDir
weft.yaml:3: cni.extra[1]: the mapping with the keys "kind" is not a plugin's entry; write its name under type, such as {type: istio-cni}
weft.yaml:3: cni.extra[2]: the mapping with the keys "type" is not a plugin's entry; write its name under type, such as {type: istio-cni}
weft.yaml:3: cni.extra[4]: weft-cni is the first plugin in any case; remove it from the list of those behind it
weft.yaml:3: cni.extra[5]: portmap is in cni.chain already; remove it there, since the plugin would be called twice`},
		{"chain that is a value", minimal + "cni: {chain: portmap}\n", `weft.yaml:3: cni.chain: must be a list, not a single value; write chain: [portmap]`},
		{"trusted", minimal + "guard: {trusted: ['wg*', wg0, wg0]}\n", `weft.yaml:3: guard.trusted[0]: "wg*" is not a valid interface name; write at most 15 letters, digits, '_', '.' and '-', such as docker0
weft.yaml:3: guard.trusted[2]: wg0 is in the list already; remove one of the two`},
		{"marks of others", minimal + "host: {markMask: 0x10004000}\n", `weft.yaml:3: host.markMask: 0x10004000 overlaps 0xc000, which kube-proxy uses; write two other bits, such as 0x30000000`},
		{"a chain without a family", minimal + "host: {acceptForwardChain: filter forward}\n", `weft.yaml:3: host.acceptForwardChain: "filter forward" is no nftables chain of another program; write its family, table and name, such as "inet filter forward"`},
		{"weft's own chain", minimal + "host: {acceptForwardChain: inet weft forward}\n", `weft.yaml:3: host.acceptForwardChain: "inet weft forward" is no nftables chain of another program; write its family, table and name, such as "inet filter forward"`},
		{"marks that are not two bits", minimal + "host: {markMask: 0x10000000}\n", `weft.yaml:3: host.markMask: 0x10000000 does not have exactly two bits set; write two that no other program uses, such as 0x30000000`},
		{"marks that are no number", minimal + "host: {markMask: 0x130000000}\n", `weft.yaml:3: host.markMask: "0x130000000" is not a number of 32 bits; write one with two bits set, such as 0x30000000`},
		{"metrics", minimal + "metrics: {listen: localhost:9339}\n", `weft.yaml:3: metrics.listen: "localhost:9339" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338, or an empty string ("") for no metrics`},
		{"metrics switched off in the wrong way", minimal + "metrics: {listen: }\n", `weft.yaml:3: metrics.listen: has no value; write one or remove the key`},
		{"tag", minimal + "listen: !!binary aGVsbG8=\n", `weft.yaml:3: listen: the tag "!!binary" is not allowed; remove it`},
		{"alias", minimal + "runDir: &dir /run/weft\nstateDir: *dir\n", `weft.yaml:4: stateDir: aliases are not allowed; write the value out`},
		{"merge key", minimal + "tun: {<<: {name: a}}\n", `weft.yaml:3: tun."<<": unknown key; remove it`},
		{"key that is no text", minimal + "? [a, b]\n: c\n", `weft.yaml:3: a key must be plain text; write it without brackets and aliases`},
		{"second document", minimal + "---\nnode: node2\n", `weft.yaml:3: a second YAML document begins here; only one is allowed: remove it or merge it into the first`},
		{"open bracket", "node: node1\nclusterCIDRs: [10.244.0.0/16\nencapsulation: vxlan\n", `weft.yaml:3: not valid YAML at column 14: did not find expected ',' or ']' (while parsing a flow sequence that began in line 2); correct the indentation, quotes or brackets here or just before`},
		{"tab", "tun:\n\tname: weft0\n", `weft.yaml:2: not valid YAML at column 1: found character that cannot start any token (while scanning for the next token that began in line 2); correct the indentation, quotes or brackets here or just before`},
		{"colon in a value", minimal + "listen: a: b\n", `weft.yaml:3: not valid YAML at column 10: mapping values are not allowed in this context; correct the indentation, quotes or brackets here or just before`},
		{"not text", "node: node1\nlisten: \xff\xfe\n", `weft.yaml:2: is not text; save it as UTF-8 without control characters`},
		{"control character", "node: node1\n\x00\n", `weft.yaml:2: is not text; save it as UTF-8 without control characters`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.file, nil, nil)
			wantError(t, err, tt.want)
		})
	}
}

func TestMistakesInFlagsAndVariables(t *testing.T) {
	tests := []struct {
		name          string
		args, environ []string
		want          string
	}{
		{"flag", []string{"--tun-driver=wireguad"}, nil, `--tun-driver: unknown driver "wireguad"; write superpacket, wireguard or water`},
		{"variable", nil, []string{"WEFT_TUN_LANES=many"}, `WEFT_TUN_LANES: "many" is not a whole number from 0 to 16; write one`},
		{"unknown variable", nil, []string{"WEFT_TUN_DRIVR=water", "WEFT_CLUSTERCIDRS=10.0.0.0/8", "WEFT_COLOUR=blue", "WEFT_CONFIGURATION=/etc/weft"}, `WEFT_CLUSTERCIDRS: unknown variable; did you mean WEFT_CLUSTER_CIDRS?
WEFT_COLOUR: unknown variable; remove it
WEFT_CONFIGURATION: unknown variable; remove it
WEFT_TUN_DRIVR: unknown variable; did you mean WEFT_TUN_DRIVER?`},
		{"variable with its earlier name", nil, []string{"WEFT_IPAM_REST=2m"}, `WEFT_IPAM_REST: unknown variable; renamed to WEFT_IPAM_COOLDOWN`},
		{"list", []string{"--cluster-cidrs=10.244.0.0/16,,10.244.7.0/24"}, nil, `--cluster-cidrs: "" is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48
--cluster-cidrs: 10.244.7.0/24 overlaps 10.244.0.0/16; remove one of them`},
		{"empty list", nil, []string{"WEFT_CLUSTER_CIDRS="}, `WEFT_CLUSTER_CIDRS: the list is empty; write the ranges that all pods' addresses come from, such as clusterCIDRs: [10.244.0.0/16]`},
		{"entries of plugins", []string{`--cni-extra={"type": "sbr"}, {"kind": "sbr", "token": "geheim"}`}, nil, `--cni-extra: entry 2: the mapping with the keys "kind, token" is not a plugin's entry; write its name under type, such as {type: istio-cni}`},
		{"half an entry", nil, []string{`WEFT_CNI_EXTRA={"token": "geheim"`}, `WEFT_CNI_EXTRA: entry 1: what is not a JSON object is not a plugin's entry; write its name under type, such as {type: istio-cni}`},
		{"empty value", []string{"--node="}, nil, `--node: the node has no name; give it the one that its weftd runs under`},
		{"hidden by a flag", []string{"--tun-lanes=1"}, []string{"WEFT_TUN_LANES=many"}, ``},
		{"other programs' variables", nil, []string{"WEFTISH=1", "PATH=/bin", "=", "WEFT"}, ``},
		{"Kubernetes' variables for Services named weft and weft-metrics", nil, []string{
			"WEFT_SERVICE_HOST=10.96.0.7", "WEFT_SERVICE_PORT=9339", "WEFT_SERVICE_PORT_HTTP=9339", "WEFT_PORT=tcp://10.96.0.7:9339",
			"WEFT_PORT_9339_TCP=tcp://10.96.0.7:9339", "WEFT_PORT_9339_TCP_PROTO=tcp", "WEFT_PORT_9339_TCP_ADDR=10.96.0.7",
			"WEFT_METRICS_SERVICE_HOST=10.96.0.8", "WEFT_METRICS_PORT_9339_TCP_PORT=9339",
		}, ``},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, minimal, tt.args, tt.environ)
			wantError(t, err, tt.want)
		})
	}
}

func TestMistakesInWhatAControlSourceNeeds(t *testing.T) {
	const etcd = "control:\n  etcd:\n    endpoints: [https://192.168.77.101:2379]\n"
	tests := []struct{ name, file, want string }{
		{"two sources", etcd + "  file: /etc/weft/nodes.yaml\n", `weft.yaml:6: control.file: only one control source is allowed, and control.etcd.endpoints is written too; remove one of the two`},
		{"no keys", "control:\n  kubernetes: {}\n", `weft.yaml:4: control.kubernetes: holds no keys; write some, or remove it`},
		{"advertise beside a list", "advertise: auto\n", `weft.yaml:3: advertise: the list of nodes, control.file, says where this node is reached; remove the key, or write control.etcd or control.kubernetes`},
		{"trust in keys beside a list", "control: {trustKeyChange: never}\n", `weft.yaml:3: control.trustKeyChange: the list of nodes, control.file, says which key each node has, and its author decides that; remove the key, or write control.etcd or control.kubernetes`},
		{"trust in keys", etcd + "  trustKeyChange: once\n", `weft.yaml:6: control.trustKeyChange: "once" is neither always nor never; write one of them`},
		{"no endpoints", "control:\n  etcd: {prefix: /weft}\n", `weft.yaml:4: control.etcd.prefix: control.etcd.endpoints is missing; write the URLs of etcd's members, such as [https://192.168.77.101:2379]`},
		{"endpoints", "control:\n  etcd:\n    endpoints: [192.168.77.101:2379, 'https://a', 'ftp://a:1', 'https://u@a:1', 'https://a:1/x']\n", `weft.yaml:5: control.etcd.endpoints[0]: "192.168.77.101:2379" is not the URL of an etcd member; write it like https://192.168.77.101:2379
weft.yaml:5: control.etcd.endpoints[1]: "https://a" is not the URL of an etcd member; write it like https://192.168.77.101:2379
weft.yaml:5: control.etcd.endpoints[2]: "ftp://a:1" is not the URL of an etcd member; write it like https://192.168.77.101:2379
weft.yaml:5: control.etcd.endpoints[3]: the URL of "a:1" has a user or a password; write it like https://192.168.77.101:2379, and these under control.etcd.username and in control.etcd.passwordFile
weft.yaml:5: control.etcd.endpoints[4]: "https://a:1/x" is not the URL of an etcd member; write it like https://192.168.77.101:2379`},
		{"password in an endpoint", "control:\n  etcd:\n    endpoints: ['https://root:pa/ss@etcd:2379', 'root:pw@etcd:2379', 'https://root:pa', 'https://a:1?token=b']\n", `weft.yaml:5: control.etcd.endpoints[0]: the URL of "etcd:2379" has a user or a password; write it like https://192.168.77.101:2379, and these under control.etcd.username and in control.etcd.passwordFile
weft.yaml:5: control.etcd.endpoints[1]: the URL of "etcd:2379" has a user or a password; write it like https://192.168.77.101:2379, and these under control.etcd.username and in control.etcd.passwordFile
weft.yaml:5: control.etcd.endpoints[2]: an endpoint, not shown because it may hold a password, is not the URL of an etcd member; write it like https://192.168.77.101:2379
weft.yaml:5: control.etcd.endpoints[3]: an endpoint, not shown because it may hold a password, is not the URL of an etcd member; write it like https://192.168.77.101:2379`},
		{"half a certificate", etcd + "    certFile: /c\n", `weft.yaml:6: control.etcd: control.etcd.certFile and control.etcd.keyFile belong together; write both or none`},
		{"half a login", etcd + "    passwordFile: /p\n", `weft.yaml:6: control.etcd: control.etcd.username and control.etcd.passwordFile belong together; write both or none`},
		{"password in clear", "control:\n  etcd:\n    endpoints: [http://a:1]\n    username: a\n    passwordFile: /p\n", `weft.yaml:5: control.etcd.endpoints: a password must not cross the network in clear; write https:// endpoints`},
		{"certificates in clear", "control:\n  etcd:\n    endpoints: ['http://a:1', 'HTTP://b:1']\n    caFile: /ca\n", `weft.yaml:6: control.etcd.caFile: a certificate has no effect with http://, which is not encrypted; write https:// endpoints, or remove the key`},
		{"endpoints of two kinds", "control:\n  etcd:\n    endpoints: ['https://a:1', 'HTTP://b:1']\n", `weft.yaml:5: control.etcd.endpoints: some etcd endpoints are http, and some https, such as http://b:1; write one kind`},
		{"prefix", etcd + "    prefix: weft/\n", `weft.yaml:6: control.etcd.prefix: "weft/" is not a valid prefix; write names of letters, digits, '_', '.' and '-', each after a '/', such as /weft`},
		{"mask", etcd + "    maskIPv4: 8\n    maskIPv6: 127\n", `weft.yaml:6: control.etcd.maskIPv4: a pod CIDR with /8 does not fit into the cluster CIDR 10.244.0.0/16; write a number from 16 on
weft.yaml:7: control.etcd.maskIPv6: "127" is not a whole number from 1 to 126; write one`},
		{"sealed flannel", "control:\n  kubernetes: {kubeconfig: '', flannelCompat: true}\n", `weft.yaml:4: control.kubernetes.flannelCompat: flannel's nodes understand the encapsulation vxlan only, and not sealed; write encapsulation: vxlan
weft.yaml:4: listen: flannel's nodes send to port 8472, whatever this node's port is; write listen: 0.0.0.0:8472`},
		{"flannel's port", "encapsulation: vxlan\nlisten: 0.0.0.0:8472\ncontrol:\n  kubernetes: {kubeconfig: '', flannelCompat: true}\n", ``},
		{"no kubeconfig", "control:\n  kubernetes: {flannelCompat: no}\n", `weft.yaml:4: control.kubernetes.flannelCompat: "no" is neither true nor false; write one of them
weft.yaml:4: control.kubernetes.flannelCompat: control.kubernetes.kubeconfig is missing; write its path, or "" to use the service account of the pod in which weftd runs`},
		{"relative kubeconfig", "control:\n  kubernetes: {kubeconfig: admin.conf}\n", `weft.yaml:4: control.kubernetes.kubeconfig: "admin.conf" is not an absolute path; write it with all folders from / on, or an empty string ("") to use the service account of the pod in which weftd runs`},
		{"an address of pods", etcd + "addresses: [192.0.2.1, 10.244.1.1]\n", `weft.yaml:6: addresses: 10.244.1.1 is inside the cluster CIDR 10.244.0.0/16, so datagrams to it would be routed into the overlay itself; write an underlay address or move the cluster CIDR`},
		{"loopback address", etcd + "addresses: [127.0.0.1]\n", `weft.yaml:6: addresses: 127.0.0.1 is loopback; write the address under which the other nodes reach this one`},
		{"many addresses", etcd + "addresses: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4, 192.0.2.5, 192.0.2.6, 192.0.2.7]\n", `weft.yaml:6: addresses: 7 are more than 6; remove those that pods don't need`},
		{"rule", etcd + "advertise: eth0\n", `weft.yaml:6: advertise: "eth0" is neither auto nor an IP address; write auto, an address, interface=NAME or can-reach=ADDRESS`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, minimal+tt.file, nil, nil)
			wantError(t, err, tt.want)
		})
	}
}

func TestEveryMistakeIsReportedAtOnce(t *testing.T) {
	_, err := load(t, `clusterCIDRs: [10.244.0.0/16]
tun:
  drivr: water
  lanes: 99
encapsulation: none
listen: nowhere
node: node1
`, []string{"--cni-name=/"}, []string{"WEFT_STATE_DIR=here", "WEFT_NODES=1"})
	wantError(t, err, `--cni-name: "/" is not a valid network name; write at most 63 letters, digits, '_', '.' and '-', such as weft
WEFT_NODES: unknown variable; did you mean WEFT_NODE?
WEFT_STATE_DIR: "here" is not an absolute path; write it with all folders from / on
weft.yaml:3: tun.drivr: unknown key; did you mean tun.driver?
weft.yaml:4: tun.lanes: "99" is not a whole number from 0 to 16; write one
weft.yaml:5: encapsulation: unknown encapsulation "none"; write sealed, or vxlan if packets may cross the underlay unencrypted
weft.yaml:6: listen: "nowhere" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338`)
}
