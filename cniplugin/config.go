package cniplugin

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"weft/ipam"
)

const (
	defaultRunDir   = "/run/weft"
	defaultStateDir = "/var/lib/weft"

	// maxContainerID is in bytes; runtimes use 64. It lets the container ID and the
	// interface name fit whole into the veth's alias, whose length the kernel limits.
	maxContainerID = 200
)

// config is the plugin's entry in a network configuration. Fields that it does not know
// are tolerated: runtimes add some.
type config struct {
	types.PluginConf
	RunDir   string `json:"runDir"`
	StateDir string `json:"stateDir"`
}

func parseConfig(stdin []byte) (*config, error) {
	conf := &config{RunDir: defaultRunDir, StateDir: defaultStateDir}
	if err := json.Unmarshal(stdin, conf); err != nil {
		return nil, withCode(types.ErrDecodingFailure, fmt.Errorf("parse the network configuration: %w", err))
	}
	for field, dir := range map[string]string{"runDir": conf.RunDir, "stateDir": conf.StateDir} {
		if !filepath.IsAbs(dir) {
			return nil, withCode(types.ErrInvalidNetworkConfig, fmt.Errorf("%s is %q: must be an absolute path", field, dir))
		}
	}
	return conf, nil
}

// checkIPAM refuses a configuration whose addresses would come from elsewhere. DEL does
// not ask: whatever the configuration has become, a pod must be able to go.
func (c *config) checkIPAM() error {
	if c.IPAM.Type != "" && c.IPAM.Type != Type {
		return withCode(types.ErrInvalidNetworkConfig,
			fmt.Errorf("ipam.type is %q: weft-cni leases addresses itself, remove the ipam section", c.IPAM.Type))
	}
	return nil
}

// prevResult parses the result of the plugins before this one; nil if there is none.
func (c *config) prevResult() (types.Result, error) {
	if len(c.RawPrevResult) == 0 {
		return nil, nil
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, withCode(types.ErrDecodingFailure, err)
	}
	return c.PrevResult, nil
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
	// pod is NAMESPACE/NAME, if the runtime tells.
	pod string
}

func parseRequest(args *skel.CmdArgs) (*request, error) {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return nil, err
	}
	if err := validateAttachment(args.ContainerID, args.IfName); err != nil {
		return nil, withCode(types.ErrInvalidEnvironmentVariables, err)
	}
	return &request{
		conf:       conf,
		attachment: ipam.Attachment{ContainerID: args.ContainerID, IfName: args.IfName},
		netns:      args.Netns,
		pod:        podOf(args.Args),
	}, nil
}

// validateAttachment accepts what the specification and the kernel both accept. Most of
// it repeats what skel does for the commands that come through it.
func validateAttachment(containerID, ifName string) error {
	if err := utils.ValidateContainerID(containerID); err != nil {
		return fmt.Errorf("CNI_CONTAINERID: %w", err)
	}
	if len(containerID) > maxContainerID {
		return fmt.Errorf("CNI_CONTAINERID has %d bytes: at most %d are possible", len(containerID), maxContainerID)
	}
	if err := utils.ValidateInterfaceName(ifName); err != nil {
		return fmt.Errorf("CNI_IFNAME: %w", err)
	}
	// The kernel takes % for the start of a pattern, and the others stand for interfaces
	// or groups of settings that exist everywhere.
	if strings.Contains(ifName, "%") || ifName == "lo" || ifName == "all" || ifName == "default" {
		return fmt.Errorf("CNI_IFNAME is %q: not a name that an interface can have", ifName)
	}
	return nil
}

// podOf finds the pod's name in CNI_ARGS (KEY=VALUE;...), as Kubernetes' runtimes send it.
func podOf(args string) string {
	values := map[string]string{}
	for pair := range strings.SplitSeq(args, ";") {
		key, value, _ := strings.Cut(pair, "=")
		values[key] = value
	}
	namespace, name := values["K8S_POD_NAMESPACE"], values["K8S_POD_NAME"]
	if namespace == "" || name == "" {
		return ""
	}
	return namespace + "/" + name
}
