// Package config reads weftd's configuration: a YAML file, environment variables
// and flags become one typed, checked Config.
//
// Everything about a key stands in one table (see keys): the file's schema, the
// flags and the variables are derived from it. The package reports all mistakes at
// once, with place and remedy. It only reads: it never writes a file,
// and it never looks at the host beyond its name.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"weft/internal/advertise"
	"weft/internal/marks"
	"weft/internal/strict"
	"weft/internal/strict/yamltree"
)

// ConflistName is the name of the conflist in cni.confDir. It sorts before what distributions
// install: a runtime takes the first.
const ConflistName = "10-weft.conflist"

// DefaultPath is the file that is read if no other is named.
const DefaultPath = "/etc/weft/weft.yaml"

// Config is weftd's configuration. What Load returns is valid and complete.
type Config struct {
	// Node is this node's name in the control source.
	Node string

	// ClusterCIDRs are the ranges of all pods' addresses: masked, not overlapping,
	// in the order in which they were written.
	ClusterCIDRs []netip.Prefix

	Encapsulation Encapsulation

	// KeyFile is the path of the node's key (EncapsulationSealed).
	KeyFile string

	// Listen is where datagrams are received. [::]:PORT stands for both families.
	Listen netip.AddrPort

	// Advertise chooses the address that the node registers (SourceEtcd, SourceKubernetes).
	Advertise advertise.Rule

	// Addresses are this node's further underlay addresses (SourceEtcd, SourceKubernetes; there,
	// none stands for the Node's InternalIPs).
	Addresses []netip.Addr

	Control Control
	TUN     TUN
	UDP     UDP
	VXLAN   VXLAN

	// StateDir holds what must survive a reboot, RunDir what must not.
	StateDir string
	RunDir   string

	CNI     CNI
	IPAM    IPAM
	Host    Host
	Guard   Guard
	Egress  Egress
	Metrics Metrics
	Echo    Echo
}

// Encapsulation is the format of the datagrams between nodes.
type Encapsulation string

const (
	// EncapsulationSealed encrypts and authenticates everything between weft nodes.
	EncapsulationSealed Encapsulation = "sealed"

	// EncapsulationVXLAN is RFC 7348: neither encrypted nor authenticated.
	EncapsulationVXLAN Encapsulation = "vxlan"
)

// Control says where the list of nodes comes from. What belongs to other sources than
// Source has its defaults, and no meaning.
type Control struct {
	Source Source

	// File is the path of a nodes.yaml.
	File string

	// TrustKeyChange says what makes a key that changes in the control source count
	// (SourceEtcd, SourceKubernetes).
	TrustKeyChange TrustKeyChange

	Etcd       Etcd
	Kubernetes Kubernetes
}

// TrustKeyChange is what becomes of a node whose key changes in the control source.
type TrustKeyChange string

const (
	// TrustAlways has the new key count at once.
	TrustAlways TrustKeyChange = "always"

	// TrustNever has the known key stay until an operator confirms the new one.
	TrustNever TrustKeyChange = "never"
)

// Source is the kind of a control source.
type Source string

const (
	// SourceFile is one list of nodes, the same file on every node.
	SourceFile Source = "file"

	// SourceEtcd is an etcd cluster in which the nodes register.
	SourceEtcd Source = "etcd"

	// SourceKubernetes is the API server's Node objects.
	SourceKubernetes Source = "kubernetes"
)

// Etcd says how to use an etcd cluster.
type Etcd struct {
	// Endpoints are URLs without a path.
	Endpoints []string

	// Prefix begins with a slash and does not end with one.
	Prefix string

	// CAFile, CertFile and KeyFile are paths of PEM files, or empty.
	CAFile, CertFile, KeyFile string

	// Username is empty if etcd takes the name in the certificate, or asks for none.
	Username, PasswordFile string

	// MaskIPv4 and MaskIPv6 are the lengths of the pod CIDRs that the node claims.
	MaskIPv4, MaskIPv6 int
}

// Kubernetes says how to use an API server.
type Kubernetes struct {
	// Kubeconfig is a path, or empty in a pod.
	Kubeconfig string

	// FlannelCompat has flannel's annotations read and written too.
	FlannelCompat bool
}

// Driver is how packets are read from the TUN device and written to it.
type Driver string

const (
	// DriverSuperpacket hands super-packets through whole.
	DriverSuperpacket Driver = "superpacket"

	// DriverWireGuard is golang.zx2c4.com/wireguard/tun, with super-packets.
	DriverWireGuard Driver = "wireguard"

	// DriverWater is github.com/songgao/water, one packet a system call.
	DriverWater Driver = "water"
)

// TUN is the device that leads to the other nodes' pods.
type TUN struct {
	Driver Driver
	Name   string

	// Lanes is the number of lanes as it was written; see Config.Lanes.
	Lanes int

	// MTU is in bytes. 0 stands for the underlay's MTU less the overhead.
	MTU int
}

// GSO says whether datagrams of one size are sent as runs (UDP GSO).
type GSO string

// The values of UDP.GSO: GSOAuto is GSOOn, except on kernels that are known to lose runs.
const (
	GSOAuto GSO = "auto"
	GSOOn   GSO = "on"
	GSOOff  GSO = "off"
)

// UDP is how datagrams are sent.
type UDP struct {
	GSO GSO
}

// VXLAN are the settings of EncapsulationVXLAN.
type VXLAN struct {
	// VNI is the network identifier, at most 2^24-1.
	VNI uint32
}

// CNI says what weftd writes for the container runtime.
type CNI struct {
	// ConfDir is where the conflist is put.
	ConfDir string

	// BinDir is where the runtime has its plugins.
	BinDir string

	// Chain is the plugins that are called after weft-cni, in this order. Those that are
	// not in BinDir are left out.
	Chain []string

	// Extra is the entries of the conflist behind those of Chain, with keys of their own.
	Extra []CNIEntry

	// Name is the network's name.
	Name string
}

// CNIEntry is the entry of one plugin in a conflist.
type CNIEntry struct {
	// Type is the plugin's name.
	Type string

	// JSON is the whole entry, an object.
	JSON string
}

// IPAM says how pods' addresses are given out.
type IPAM struct {
	// Cooldown is how long a released address stays unused; whole seconds.
	Cooldown time.Duration

	// Reserved are given to no pod. Other nodes' may be among them.
	Reserved []netip.Prefix
}

// Host says how weft gets along with the other programs on the host.
type Host struct {
	// MarkMask is valid (see marks.Mask.Check).
	MarkMask marks.Mask

	// AcceptForward says that weftd adds rules to other programs' filters that drop
	// forwarded packets: to those of iptables, and to AcceptForwardChain.
	AcceptForward bool

	// AcceptForwardChain is "FAMILY TABLE CHAIN", or empty.
	AcceptForwardChain string
}

// Guard says what the guard table lets through.
type Guard struct {
	// Trusted are the names of interfaces from which pods may be reached by their addresses.
	Trusted []string
}

// Egress says how pods reach the outside.
type Egress struct {
	// RandomPorts is whether what pods send gets a random source port.
	RandomPorts bool
}

// Echo says where weftd answers `weft connectivity test` of other nodes, over the overlay alone.
type Echo struct {
	// Port is that of TCP and UDP; 0 if it does not answer.
	Port uint16
}

// Lanes returns the number of lanes to run, at least 1: the configured one, or one
// for each CPU that this process may use, at most 4.
func (c Config) Lanes() int {
	const most = 4
	if c.TUN.Lanes > 0 {
		return c.TUN.Lanes
	}
	return min(runtime.GOMAXPROCS(0), most)
}

// Load returns the configuration out of the flags that AddFlags added (which must
// have been parsed), the environment (see os.Environ), the file and the defaults,
// in this order of precedence. Its error joins all problems found.
//
// The file at DefaultPath may be absent if flags and variables say all that has no
// default; a file that was named must exist.
func Load(flags *pflag.FlagSet, environ []string) (Config, error) {
	var problems strict.Problems
	written := fromEnviron(environ, &problems)
	maps.Copy(written, fromFlags(flags))
	file, named := filePath(flags, environ)
	root, absent := readFile(file, named, &problems)
	c := resolve(file, root, absent, written, &problems)
	if err := problems.Err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// resolve completes what flags and variables say by the file's tree and the defaults.
func resolve(file string, root *yamltree.Node, absent bool, written map[string]setting, problems *strict.Problems) Config {
	if root.Is(yamltree.Mapping, problems) {
		flatten(root, func(path string, s setting) {
			if _, overridden := written[path]; !overridden {
				written[path] = s
			}
		}, problems)
		addMissing(file, absent, written, problems)
	}
	c := build(written, problems)
	checkSource(&c, written, problems)
	checkMTU(&c, written, problems)
	return c
}

// readFile returns the file's tree. An absent file counts as an empty one, unless it was
// named.
func readFile(file string, named bool, problems *strict.Problems) (root *yamltree.Node, absent bool) {
	data, err := yamltree.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		absent = true
	case errors.Is(err, fs.ErrNotExist):
		problems.Addf(file, "", "the file does not exist; write it, or name another one with --%s", configFlag)
		return &yamltree.Node{Kind: yamltree.Refused}, true
	case err != nil:
		problems.Addf("", "", "read the configuration: %w", err)
		return &yamltree.Node{Kind: yamltree.Refused}, false
	}
	return yamltree.Parse(file, data, problems), absent
}

// addMissing makes a problem of every key that must be written and is not.
func addMissing(file string, absent bool, written map[string]setting, problems *strict.Problems) {
	var flags []string
	for _, k := range keys {
		if _, ok := written[k.path]; ok || k.missing == "" {
			continue
		}
		flags = append(flags, "--"+k.flag())
		if !absent {
			problems.Addf(file, k.path, "missing; %s", k.missing)
		}
	}
	if absent && len(flags) > 0 {
		problems.Addf(file, "", "the file does not exist; write it, name another one with --%s, or give %s",
			configFlag, strings.Join(flags, " and "))
	}
}

// build parses what was written, and the defaults of the rest.
func build(written map[string]setting, problems *strict.Problems) Config {
	var c Config
	for _, k := range keys {
		s, ok := written[k.path]
		if !ok {
			if k.fallback == "" {
				continue
			}
			s = settingOfText(k.path, k.fallback, k)
		}
		if len(s.items) == 0 && !s.refused && !k.mayBeEmpty {
			problems.Addf(s.origin, s.subject, "the list is empty; %s", k.missing)
		}
		for _, i := range s.items {
			if err := k.set(&c, i.text); err != nil {
				problems.Add(i.origin, i.subject, err)
			}
		}
	}
	if _, ok := written["node"]; !ok {
		setHostName(&c, problems)
	}
	return c
}

// setHostName names the node as kubelet does: by its host name in lower case.
func setHostName(c *Config, problems *strict.Problems) {
	name, err := os.Hostname()
	if err == nil {
		name = strings.ToLower(name)
		err = strict.CheckNodeName(name)
	}
	if err != nil {
		problems.Add("", "node", fmt.Errorf("the host name can't be the node's name: %w; or write another name under node", err))
	}
	c.Node = name
}
