package system

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/internal/testnet"
)

// Features are the offloads of a link that can be switched, by the names that
// `ethtool -k` prints.
type Features map[string]bool

// On lists the features that are on, sorted.
func (f Features) On() []string {
	var on []string
	for name, is := range f {
		if is {
			on = append(on, name)
		}
	}
	slices.Sort(on)
	return on
}

func readFeatures(ctx context.Context, n *testnet.Namespace, link string) (Features, error) {
	out, err := n.Exec(ctx, "ethtool", "-k", link)
	if err != nil {
		return nil, fmt.Errorf("read offloads: %w", err)
	}
	return parseFeatures(out), nil
}

// parseFeatures reads lines like "tx-udp-segmentation: off [requested on]". Those that
// end in [fixed] are left out.
func parseFeatures(ethtool string) Features {
	features := Features{}
	for line := range strings.Lines(ethtool) {
		name, state, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && !strings.HasSuffix(state, "[fixed]") {
			features[name] = strings.HasPrefix(state, "on")
		}
	}
	return features
}

// verifyFeatures checks that the wire still is what testnet made it, and checked when
// it did: a daemon may have changed it since.
func (p *Path) verifyFeatures(ctx context.Context) error {
	for i, n := range p.Nodes {
		have, err := readFeatures(ctx, n, underlayLink)
		if err != nil {
			return err
		}
		if maps.Equal(have, p.Features[i]) {
			continue
		}
		return fmt.Errorf("the offloads of the wire at %s have changed: on were %v, are %v", n.Name(), p.Features[i].On(), have.On())
	}
	return nil
}
