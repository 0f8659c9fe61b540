package cniplugin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"weft/internal/family"
	"weft/internal/nodefile"
	"weft/ipam"
)

const (
	defaultRunDir   = "/run/weft"
	defaultStateDir = "/var/lib/weft"

	// maxContainerID is in bytes; runtimes use 64. It lets the container ID and the
	// interface name fit whole into the veth's alias, whose length the kernel limits.
	maxContainerID = 200
)

// config is the plugin's entry in a network configuration. Fields that it does not know are
// tolerated: runtimes add some.
type config struct {
	types.PluginConf
	RunDir   string `json:"runDir"`
	StateDir string `json:"stateDir"`

	// MTU of the pod's interface, in bytes; 0 for the overlay's.
	MTU int `json:"mtu"`

	IPAM ipamConfig `json:"ipam"`

	// Addresses asked for by name: by the capabilities ips and mac, and by the older convention.
	RuntimeConfig byName `json:"runtimeConfig"`
	Args          struct {
		CNI byName `json:"cni"`
	} `json:"args"`

	// ValidAttachments is nil if the runtime did not list them.
	ValidAttachments *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// ipamConfig is the section ipam. The addresses are always weft's own leases.
type ipamConfig struct {
	// Routes are what pods reach through this interface; everything, if there are none.
	Routes []*types.Route `json:"routes"`

	// The others are refused.
	Type     string `json:"type"`
	Ranges   any    `json:"ranges"`
	Reserved any    `json:"reserved"`
	Cooldown any    `json:"cooldown"`
}

// check refuses what other plugins do with addresses. DEL and GC do not ask: whatever the
// configuration was or has become, a pod must be able to go.
func (c ipamConfig) check() error {
	if c.Type != "" {
		return invalid("ipam.type is %q: weft-cni leases this node's pod CIDRs itself; remove ipam.type", c.Type)
	}
	if c.Ranges != nil || c.Reserved != nil || c.Cooldown != nil {
		return invalid("ipam has ranges, reserved or cooldown: weft-cni leases this node's pod CIDRs, as weftd is configured (ipam.reserved, ipam.cooldown)")
	}
	return nil
}

// byName are the addresses that a runtime asks for, where a pod otherwise gets free ones.
type byName struct {
	IPs []string `json:"ips"`
	MAC string   `json:"mac"`
}

func parseConfig(stdin []byte) (*config, error) {
	conf := &config{RunDir: defaultRunDir, StateDir: defaultStateDir}
	if err := json.Unmarshal(stdin, conf); err != nil {
		return nil, withCode(types.ErrDecodingFailure, fmt.Errorf("parse the network configuration: %w", err))
	}
	for field, dir := range map[string]string{"runDir": conf.RunDir, "stateDir": conf.StateDir} {
		if !filepath.IsAbs(dir) {
			return nil, invalid("%s is %q: must be an absolute path", field, dir)
		}
	}
	if conf.IPAM.Type != "" {
		if err := CheckPluginName(conf.IPAM.Type); err != nil {
			return nil, invalid("ipam.type: %w", err)
		}
	}
	return conf, nil
}

// maxPluginName is the length in bytes of the longest file name (NAME_MAX).
const maxPluginName = 255

// CheckPluginName refuses what is no plain file name: joined to a folder of plugins it would
// name a program elsewhere.
func CheckPluginName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxPluginName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%.40q is not a plugin's name; write a file name of 1 to %d bytes, without folders", name, maxPluginName)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return withCode(types.ErrInvalidNetworkConfig, fmt.Errorf(format, args...))
}

// prevResult parses the result of the plugins before this one; nil if there is none.
func (c *config) prevResult() (*types100.Result, error) {
	if len(c.RawPrevResult) == 0 {
		return nil, nil
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, withCode(types.ErrDecodingFailure, err)
	}
	result, err := types100.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, withCode(types.ErrDecodingFailure, fmt.Errorf("convert prevResult: %w", err))
	}
	return result, nil
}

// minMTU4 is what every IPv4 host takes (RFC 1122, section 3.3.2).
const minMTU4 = 576

// mtuOn returns the MTU of the pod's interface on a node.
func (c *config) mtuOn(node nodefile.Node) (int, error) {
	least := family.LeastMTU6
	if node.MTU < least { // the cluster has no IPv6
		least = minMTU4
	}
	if c.MTU != 0 && (c.MTU < least || c.MTU > node.MTU) {
		return 0, invalid("mtu is %d: must be from %d to %d, the overlay's", c.MTU, least, node.MTU)
	}
	return cmp.Or(c.MTU, node.MTU), nil
}

func (c *config) leases() (*ipam.Store, error) {
	store, err := ipam.Open(c.StateDir, c.Name)
	return store, withCode(types.ErrInvalidNetworkConfig, err)
}

// request is what one call asks for.
type request struct {
	conf       *config
	attachment ipam.Attachment
	netns      string
	// pod is NAMESPACE/NAME, if the runtime passes them.
	pod string
	// wanted and mac are the addresses that are asked for by name; mac may be nil.
	wanted []netip.Addr
	mac    net.HardwareAddr
}

func parseRequest(args *skel.CmdArgs) (*request, error) {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return nil, err
	}
	if err := validateAttachment(args.ContainerID, args.IfName); err != nil {
		return nil, withCode(types.ErrInvalidEnvironmentVariables, err)
	}
	values := parseArgs(args.Args)
	wanted, err := conf.wanted(values["IP"])
	if err != nil {
		return nil, err
	}
	mac, err := conf.mac(values["MAC"])
	if err != nil {
		return nil, err
	}
	return &request{
		conf:       conf,
		attachment: ipam.Attachment{ContainerID: args.ContainerID, IfName: args.IfName},
		netns:      args.Netns,
		pod:        podOf(values),
		wanted:     wanted,
		mac:        mac,
	}, nil
}

// validateAttachment accepts what the specification and the kernel both accept. Most of
// it repeats what skel does for the commands that come through it.
func validateAttachment(containerID, ifName string) error {
	if err := utils.ValidateContainerID(containerID); err != nil {
		return fmt.Errorf("CNI_CONTAINERID: %w", err)
	}
	if len(containerID) > maxContainerID {
		return fmt.Errorf("CNI_CONTAINERID has %d bytes: at most %d are allowed", len(containerID), maxContainerID)
	}
	if err := utils.ValidateInterfaceName(ifName); err != nil {
		return fmt.Errorf("CNI_IFNAME: %w", err)
	}
	// The kernel takes % for the start of a pattern, and the others stand for interfaces
	// or groups of settings that exist everywhere.
	if strings.Contains(ifName, "%") || ifName == "lo" || ifName == "all" || ifName == "default" {
		return fmt.Errorf("CNI_IFNAME is %q: not a valid interface name", ifName)
	}
	return nil
}

// parseArgs parses CNI_ARGS: KEY=VALUE;...
func parseArgs(args string) map[string]string {
	values := map[string]string{}
	for pair := range strings.SplitSeq(args, ";") {
		key, value, _ := strings.Cut(pair, "=")
		values[key] = value
	}
	return values
}

// podOf finds the pod's name in CNI_ARGS, as Kubernetes' runtimes send it.
func podOf(values map[string]string) string {
	namespace, name := values["K8S_POD_NAMESPACE"], values["K8S_POD_NAME"]
	if namespace == "" || name == "" {
		return ""
	}
	return namespace + "/" + name
}

// wanted returns the addresses that are asked for by name, wherever that is. They may be
// written with a prefix length, which says nothing here.
func (c *config) wanted(fromArgs string) ([]netip.Addr, error) {
	var wanted []netip.Addr
	for _, source := range []struct {
		name  string
		texts []string
		code  uint
	}{
		{"runtimeConfig.ips", c.RuntimeConfig.IPs, types.ErrInvalidNetworkConfig},
		{"args.cni.ips", c.Args.CNI.IPs, types.ErrInvalidNetworkConfig},
		{"IP in CNI_ARGS", strings.FieldsFunc(fromArgs, func(r rune) bool { return r == ',' }), types.ErrInvalidEnvironmentVariables},
	} {
		for _, text := range source.texts {
			bare, _, _ := strings.Cut(text, "/")
			addr, err := netip.ParseAddr(bare)
			if err != nil || addr.Zone() != "" {
				return nil, withCode(source.code, fmt.Errorf("%s: %q is not an IP address", source.name, text))
			}
			wanted = append(wanted, addr.Unmap())
		}
		if len(wanted) > 0 {
			break // the same in older words
		}
	}
	return wanted, nil
}

// mac returns the MAC address that is asked for by name, or nil.
func (c *config) mac(fromArgs string) (net.HardwareAddr, error) {
	text := cmp.Or(c.RuntimeConfig.MAC, c.Args.CNI.MAC)
	code := types.ErrInvalidNetworkConfig
	if text == "" {
		text, code = fromArgs, types.ErrInvalidEnvironmentVariables
	}
	if text == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || [6]byte(mac) == [6]byte{} {
		return nil, withCode(code, fmt.Errorf("mac is %q: not a valid address of an interface", text))
	}
	return mac, nil
}
