package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"weft/internal/advertise"
	"weft/internal/marks"
	"weft/internal/strict"
)

// key is all that is known about one key of the configuration.
type key struct {
	// path is the dotted name in the file.
	path string

	// arg stands for the value in the flag's help.
	arg  string
	help string

	// fallback is the default, as one would write it. Empty if there is none, or
	// if it is not a constant: then otherwise says it in words.
	fallback, otherwise string

	// missing is the remedy for a key that must be written but is not.
	missing string

	// list keys hold several values: a YAML list, or commas between them. The default is
	// written with commas, too.
	list bool

	// objects says that the values are mappings with keys that weft does not know. As text
	// they are JSON.
	objects bool

	// mayBeEmpty says that an empty list means something.
	mayBeEmpty bool

	// set parses one value into c: the only one, or one of the list's, in order.
	set func(c *Config, text string) error
}

// keys is every key there is, in the order of the documentation.
var keys = []key{
	{path: "node", arg: "NAME", help: "this node's name in the list of nodes", otherwise: "the host name", set: func(c *Config, text string) error {
		c.Node = text
		return strict.CheckNodeName(text)
	}},
	{path: "clusterCIDRs", arg: "PREFIX,...", help: "the ranges of all pods' addresses; the same on every node", list: true,
		missing: "write the ranges that all pods' addresses come from, such as clusterCIDRs: [10.244.0.0/16]", set: addClusterCIDR},
	{path: "encapsulation", arg: "FORMAT", help: "format of the datagrams between nodes: sealed (encrypted) or vxlan (not encrypted); the same on every node",
		fallback: string(EncapsulationSealed), set: setEncapsulation},
	{path: "keyFile", arg: "PATH", help: "this node's key, written by weft keygen; only root and weftd's user may be able to read it (sealed)", fallback: "/etc/weft/node.key",
		set: func(c *Config, text string) error { return setPath(&c.KeyFile, text) }},
	{path: "listen", arg: "ADDR:PORT", help: "address and UDP port on which weftd receives datagrams; [::]:PORT for IPv4 and IPv6", fallback: "0.0.0.0:9338",
		set: func(c *Config, text string) error { return setAddrPort(&c.Listen, text) }},
	{path: "advertise", arg: "RULE", help: "the address that this node registers: auto, ADDRESS, interface=NAME or can-reach=ADDRESS (etcd, kubernetes)", fallback: "auto",
		set: func(c *Config, text string) (err error) { c.Advertise, err = advertise.Parse(text); return err }},
	{path: "addresses", arg: "ADDRESS,...", help: "further addresses, at most 6, at which pods of other nodes reach this node through the overlay (etcd, kubernetes)", otherwise: "with kubernetes the InternalIPs", list: true, mayBeEmpty: true, set: addAddress},
	{path: "control.file", arg: "PATH", help: "the list of nodes", fallback: "/etc/weft/nodes.yaml",
		set: func(c *Config, text string) error { return setPath(&c.Control.File, text) }},
	{path: "control.etcd.endpoints", arg: "URL,...", help: "URLs of the etcd members in which the nodes register", list: true, set: addEtcdEndpoint},
	{path: "control.etcd.prefix", arg: "PREFIX", help: "prefix of weft's keys in etcd", fallback: "/weft", set: setEtcdPrefix},
	{path: "control.etcd.caFile", arg: "PATH", help: "CA certificates that may have signed etcd's certificate", otherwise: "the CAs that the host trusts",
		set: func(c *Config, text string) error { return setPath(&c.Control.Etcd.CAFile, text) }},
	{path: "control.etcd.certFile", arg: "PATH", help: "this node's certificate for etcd",
		set: func(c *Config, text string) error { return setPath(&c.Control.Etcd.CertFile, text) }},
	{path: "control.etcd.keyFile", arg: "PATH", help: "the private key of control.etcd.certFile",
		set: func(c *Config, text string) error { return setPath(&c.Control.Etcd.KeyFile, text) }},
	{path: "control.etcd.username", arg: "NAME", help: "this node's user in etcd, unless the certificate names it",
		set: func(c *Config, text string) error { c.Control.Etcd.Username = text; return nil }},
	{path: "control.etcd.passwordFile", arg: "PATH", help: "a file with the password of control.etcd.username",
		set: func(c *Config, text string) error { return setPath(&c.Control.Etcd.PasswordFile, text) }},
	{path: "control.etcd.maskIPv4", arg: "BITS", help: "prefix length of the IPv4 pod CIDR that this node claims, at most 30", fallback: "24",
		set: func(c *Config, text string) error { return setNumber(&c.Control.Etcd.MaskIPv4, text, 1, 30) }},
	{path: "control.etcd.maskIPv6", arg: "BITS", help: "prefix length of the IPv6 pod CIDR that this node claims, at most 126", fallback: "64",
		set: func(c *Config, text string) error { return setNumber(&c.Control.Etcd.MaskIPv6, text, 1, 126) }},
	{path: "control.kubernetes.kubeconfig", arg: "PATH", help: "how to reach the API server; empty: by the service account of weftd's pod",
		set: setKubeconfig},
	{path: "control.kubernetes.flannelCompat", arg: "BOOL", help: "read and write flannel's annotations too, so that flannel nodes are peers (vxlan)", fallback: "false",
		set: func(c *Config, text string) error { return setBool(&c.Control.Kubernetes.FlannelCompat, text) }},
	{path: "control.trustKeyChange", arg: "WHEN", help: "when a known node's key changes, use the new key at once (always) or only after weft confirm (never) (etcd, kubernetes)",
		fallback: string(TrustAlways), set: setTrustKeyChange},
	{path: "tun.driver", arg: "DRIVER", help: "how packets pass the TUN device: superpacket, wireguard or water", fallback: string(DriverSuperpacket), set: setDriver},
	{path: "tun.name", arg: "NAME", help: "name of the TUN device", fallback: "weft0", set: setTUNName},
	{path: "tun.lanes", arg: "N", help: "number of lanes, at most 16; 0: one for each CPU, at most 4", fallback: "0",
		set: func(c *Config, text string) error { return setNumber(&c.TUN.Lanes, text, 0, 16) }},
	{path: "tun.mtu", arg: "BYTES", help: "largest packet of pods in bytes, 576 to 65000, with IPv6 in clusterCIDRs at least 1280; 0: the underlay's MTU less the overhead", fallback: "0", set: setMTU},
	{path: "udp.gso", arg: "auto|on|off", help: "send runs of datagrams of one size as one message (UDP GSO); auto: unless this kernel is known to lose some of them, or they don't arrive at a peer", fallback: string(GSOAuto), set: setGSO},
	{path: "vxlan.vni", arg: "N", help: "the VXLAN network identifier, at most 16777215; the same on every node", fallback: "1",
		set: func(c *Config, text string) error { return setNumber(&c.VXLAN.VNI, text, 0, 1<<24-1) }},
	{path: "stateDir", arg: "PATH", help: "folder for leases and the last list of nodes; must survive a reboot", fallback: "/var/lib/weft",
		set: func(c *Config, text string) error { return setPath(&c.StateDir, text) }},
	{path: "runDir", arg: "PATH", help: "folder for the files of weft-cni and weft; must not survive a reboot", fallback: "/run/weft",
		set: func(c *Config, text string) error { return setPath(&c.RunDir, text) }},
	{path: "cni.confDir", arg: "PATH", help: "folder in which the container runtime looks for CNI networks", fallback: "/etc/cni/net.d",
		set: func(c *Config, text string) error { return setPath(&c.CNI.ConfDir, text) }},
	{path: "cni.binDir", arg: "PATH", help: "folder of the container runtime's CNI plugins", fallback: "/opt/cni/bin",
		set: func(c *Config, text string) error { return setPath(&c.CNI.BinDir, text) }},
	{path: "cni.chain", arg: "NAME,...", help: "CNI plugins to call after weft-cni, if they are in cni.binDir; empty: none", list: true, mayBeEmpty: true,
		fallback: "portmap,bandwidth,tuning", set: addChained},
	{path: "cni.extra", arg: "JSON,...", help: "entries of further CNI plugins, after those of cni.chain: each an object with its type and other keys", list: true, objects: true, mayBeEmpty: true, set: addExtra},
	{path: "cni.name", arg: "NAME", help: "name of the CNI network", fallback: "weft", set: setCNIName},
	{path: "ipam.cooldown", arg: "DURATION", help: "how long a released pod address stays unused while others are free, in whole seconds, at most 24h", fallback: "2m", set: setCooldown},
	{path: "ipam.reserved", arg: "PREFIX,...", help: "addresses and ranges that no pod gets", list: true, mayBeEmpty: true, set: addReserved},
	{path: "host.markMask", arg: "MASK", help: "the two bits of packet marks (SO_MARK, meta mark) that weft uses; change it if another program uses them", fallback: "0x30000000", set: setMarkMask},
	{path: "host.acceptForward", arg: "BOOL", help: "where another program's filter drops forwarded packets, add rules that accept pods' packets", fallback: "false",
		set: func(c *Config, text string) error { return setBool(&c.Host.AcceptForward, text) }},
	{path: "host.acceptForwardChain", arg: "CHAIN", help: "the nftables chain that host.acceptForward extends beside those of iptables, as FAMILY TABLE CHAIN; empty: none", set: setForwardChain},
	{path: "guard.trusted", arg: "NAME,...", help: "interfaces, such as a VPN's or docker0, from which other hosts may reach this node's pods by their addresses; not other nodes' pods, unless the host masquerades", list: true, mayBeEmpty: true, set: addTrusted},
	{path: "egress.randomPorts", arg: "BOOL", help: "packets that pods send outside the cluster get a random source port; false: they keep the pod's port where it is free", fallback: "true",
		set: func(c *Config, text string) error { return setBool(&c.Egress.RandomPorts, text) }},
	{path: "metrics.listen", arg: "ADDR:PORT", help: "address that serves metrics and health over HTTP; empty: none", fallback: "127.0.0.1:9339", set: setMetricsListen},
	{path: "metrics.peers", arg: "NUMBER", help: "metrics for each peer where there are at most so many; 0: none", fallback: "100",
		set: func(c *Config, text string) error { return setNumber(&c.Metrics.Peers, text, 0, 10_000) }},
	{path: "metrics.page", arg: "auto|on|off", help: "serve the status page there too; auto: if metrics.listen is a loopback address", fallback: string(PageAuto), set: setPage},
	{path: "echo.port", arg: "PORT", help: "TCP and UDP port on the overlay that answers weft connectivity test of other nodes, the same on every node; 0: none", fallback: "9340", set: setEchoPort},
}

// renamed maps the paths that keys had in earlier versions to those of now.
var renamed = map[string]string{"ipam.rest": "ipam.cooldown"}

// unknown returns the remedy for a name that no key has. nameOf is how the file, or the
// environment, names a key; others are the names there that are no key's.
func unknown(name string, nameOf func(key) string, others ...string) string {
	for before, now := range renamed {
		if name == nameOf(key{path: before}) {
			return "renamed to " + nameOf(key{path: now})
		}
	}
	return strict.DidYouMean(name, append(names(nameOf), others...))
}

// flag returns the name of the key's flag: tun.driver → tun-driver,
// clusterCIDRs → cluster-cidrs.
func (k key) flag() string {
	var b strings.Builder
	last := '-'
	for _, r := range strings.ReplaceAll(k.path, ".", "-") {
		if unicode.IsUpper(r) && unicode.IsLower(last) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
		last = r
	}
	return b.String()
}

// usage is the flag's help. pflag appends a constant default by itself.
func (k key) usage() string {
	if k.otherwise == "" {
		return k.help
	}
	return fmt.Sprintf("%s (default: %s)", k.help, k.otherwise)
}

// variable returns the name of the key's environment variable: tun.driver → WEFT_TUN_DRIVER.
func (k key) variable() string { return variable(k.flag()) }

func variable(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// unroutable are ranges in which no pod can have an address.
var unroutable = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("224.0.0.0/3"), "multicast and reserved"},
	{netip.MustParsePrefix("::/127"), "unspecified and loopback"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

func addClusterCIDR(c *Config, text string) error {
	p, err := strict.ParsePrefix(text)
	if err != nil {
		return err
	}
	for _, u := range unroutable {
		if p.Overlaps(u.prefix) {
			return fmt.Errorf("%s overlaps %s (%s); use a range such as 10.244.0.0/16 or fd00:244::/48", p, u.prefix, u.name)
		}
	}
	for _, other := range c.ClusterCIDRs {
		if p.Overlaps(other) {
			return fmt.Errorf("%s overlaps %s; remove one of them", p, other)
		}
	}
	c.ClusterCIDRs = append(c.ClusterCIDRs, p)
	return nil
}

func setBool(to *bool, text string) error {
	switch text {
	case "true", "false":
		*to = text == "true"
		return nil
	}
	return fmt.Errorf("%s is neither true nor false; write one of them", strict.Quote(text))
}

func setForwardChain(c *Config, text string) error {
	words := strings.Fields(text)
	if text != "" && (len(words) != 3 || !slices.Contains([]string{"ip", "ip6", "inet"}, words[0]) || !nftName.MatchString(words[1]) || !nftName.MatchString(words[2]) || words[1] == marks.Table) {
		return fmt.Errorf("%q is no nftables chain of another program; write its family, table and name, such as \"inet filter forward\"", text)
	}
	c.Host.AcceptForwardChain = strings.Join(words, " ")
	return nil
}

// nftName is a name of a table or chain of nftables (nft(8)).
var nftName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9/\\_.-]*$`)

func addTrusted(c *Config, text string) error {
	switch {
	case !linkName.MatchString(text):
		return fmt.Errorf("%s is not a valid interface name; write at most 15 letters, digits, '_', '.' and '-', such as docker0", strict.Quote(text))
	case slices.Contains(c.Guard.Trusted, text):
		return fmt.Errorf("%s is in the list already; remove one of the two", text)
	}
	c.Guard.Trusted = append(c.Guard.Trusted, text)
	return nil
}

func setMarkMask(c *Config, text string) error {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return fmt.Errorf("%s is not a number of 32 bits; write one with two bits set, such as %#x", strict.Quote(text), uint32(marks.DefaultMask))
	}
	c.Host.MarkMask = marks.Mask(n)
	return c.Host.MarkMask.Check()
}

func setAddrPort(to *netip.AddrPort, text string) (err error) {
	if *to, err = strict.ParseAddrPort(text); err != nil {
		return err
	}
	if to.Addr().IsMulticast() {
		return fmt.Errorf("%s is multicast; write an address of this node", to)
	}
	return nil
}

func setPath(to *string, text string) error {
	if !filepath.IsAbs(text) || strings.ContainsRune(text, 0) {
		return fmt.Errorf("%s is not an absolute path; write it with all folders from / on", strict.Quote(text))
	}
	*to = filepath.Clean(text)
	return nil
}

func setNumber[N int | uint32](to *N, text string, least, most N) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || N(n) < least || N(n) > most {
		return fmt.Errorf("%s is not a whole number from %d to %d; write one", strict.Quote(text), least, most)
	}
	*to = N(n)
	return nil
}
