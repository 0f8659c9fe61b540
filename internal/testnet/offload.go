package testnet

import (
	"context"
	"fmt"
	"strings"
)

// Offloads names a profile of what a network card does for the kernel. Routers
// differ most in how they cope when it does less.
type Offloads string

const (
	// Full has every offload on.
	Full Offloads = "full"

	// NoTunnel segments TCP and UDP, but nothing inside a tunnel, as most cloud NICs.
	NoTunnel Offloads = "notun"

	// Bare neither segments nor checksums; the kernel's GRO stays on.
	Bare Offloads = "bare"
)

// The features of a profile, by the names that ethtool takes and prints.
var (
	basicFeatures = []string{
		"rx-checksumming", "tx-checksumming",
		"generic-segmentation-offload", "tcp-segmentation-offload", "tx-udp-segmentation",
	}
	tunnelFeatures = []string{
		"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation",
		"tx-gre-segmentation", "tx-gre-csum-segmentation",
		"tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
	}
)

// features returns the state of each feature that the profile sets, by the names
// that `ethtool -k` prints.
func (o Offloads) features() (map[string]bool, error) {
	var basic, tunnel bool
	switch o {
	case Full:
		basic, tunnel = true, true
	case NoTunnel:
		basic, tunnel = true, false
	case Bare:
	default:
		return nil, fmt.Errorf("unknown offload profile %q: want full, notun or bare", o)
	}
	features := map[string]bool{"generic-receive-offload": true}
	for _, f := range basicFeatures {
		features[f] = basic
	}
	for _, f := range tunnelFeatures {
		features[f] = tunnel
	}
	return features, nil
}

// SetOffloads gives the link a profile, and checks that the kernel took it: ethtool
// succeeds too when a feature is fixed or depends on another that is off.
func (n *Namespace) SetOffloads(ctx context.Context, link string, o Offloads) error {
	want, err := o.features()
	if err != nil {
		return err
	}
	args := []string{"-K", link}
	for feature, on := range want {
		args = append(args, feature, onOff(on))
	}
	if _, err := n.Exec(ctx, "ethtool", args...); err != nil {
		return fmt.Errorf("set offloads %s: %w", o, err)
	}
	have, err := n.Features(ctx, link)
	if err != nil {
		return err
	}
	for feature, on := range want {
		if have[feature] != on {
			return fmt.Errorf("set offloads %s of %s in %s: %s did not turn %s", o, link, n.name, feature, onOff(on))
		}
	}
	return nil
}

// Features returns the state of every feature of a link, as `ethtool -k` names them.
func (n *Namespace) Features(ctx context.Context, link string) (map[string]bool, error) {
	out, err := n.Exec(ctx, "ethtool", "-k", link)
	if err != nil {
		return nil, fmt.Errorf("read offloads: %w", err)
	}
	features := make(map[string]bool)
	for line := range strings.Lines(out) {
		name, state, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok {
			features[name] = strings.HasPrefix(state, "on")
		}
	}
	return features, nil
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
