package system

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Features are the offloads of a link, by the names that `ethtool -k` prints.
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

// verifyFeatures checks that the wire still is what testnet made it, and checked when
// it did: a daemon may have changed it since.
func (p *Path) verifyFeatures(ctx context.Context) error {
	for i, n := range p.Nodes {
		have, err := n.Features(ctx, underlayLink)
		if err != nil {
			return err
		}
		if maps.Equal(have, p.Features[i]) {
			continue
		}
		return fmt.Errorf("the offloads of the wire at %s have changed: on were %v, are %v", n.Name(), p.Features[i].On(), Features(have).On())
	}
	return nil
}
