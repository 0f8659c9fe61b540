package file

import (
	"encoding/hex"
	"fmt"
	"net/netip"

	"weft/control"
	"weft/internal/strict"
	"weft/internal/strict/yamltree"
	"weft/peer"
)

// Parse returns the State that data describes, which was read from path. Its error
// joins everything that is no nodes.yaml in it. Whether the nodes make sense
// together is for control.NewPlan to say.
func Parse(path string, data []byte) (control.State, error) {
	state := control.State{Origin: path}
	var problems strict.Problems
	root := yamltree.Parse(path, data, &problems)
	if root.Is(yamltree.Mapping, &problems) {
		root.OnlyKeys(&problems, "nodes")
		switch nodes := root.Get("nodes"); {
		case nodes == nil:
			problems.Addf(path, "nodes", "missing; list the cluster's nodes under it")
		case nodes.Is(yamltree.List, &problems):
			state.Nodes = make([]control.Node, 0, nodes.Len())
			for n := range nodes.Items(&problems) {
				state.Nodes = append(state.Nodes, parseNode(n, &problems))
			}
		}
	}
	if err := problems.Err(); err != nil {
		return control.State{}, err
	}
	return state, nil
}

func parseNode(n *yamltree.Node, problems *strict.Problems) control.Node {
	node := control.Node{Origin: n.Origin()}
	if !n.Is(yamltree.Mapping, problems) {
		return node
	}
	n.OnlyKeys(problems, "name", "endpoint", "addresses", "podCIDRs", "vtepMAC", "key")
	for _, required := range []string{"name", "endpoint", "podCIDRs"} {
		if n.Get(required) == nil {
			problems.Addf(n.Origin(), n.Path(), "%s is missing; a node has name, endpoint and podCIDRs", required)
		}
	}
	parse(n.Get("name"), problems, func(text string) error {
		node.Name = text
		return strict.CheckNodeName(text)
	})
	parse(n.Get("endpoint"), problems, func(text string) (err error) {
		node.Endpoint, err = strict.ParseAddrPort(text)
		return err
	})
	node.Addresses = parseList(n.Get("addresses"), problems, parseAddr)
	node.PodCIDRs = parseList(n.Get("podCIDRs"), problems, strict.ParsePrefix)
	parse(n.Get("vtepMAC"), problems, func(text string) (err error) {
		node.VTEPMAC, err = parseMAC(text)
		return err
	})
	parse(n.Get("key"), problems, func(text string) (err error) {
		node.Key, err = parseKey(text)
		return err
	})
	return node
}

// parse hands the text of n, if it is there, to set, and makes a problem of set's error.
func parse(n *yamltree.Node, problems *strict.Problems, set func(text string) error) {
	if n == nil || !n.Is(yamltree.Scalar, problems) {
		return
	}
	if err := set(n.Text); err != nil {
		problems.Add(n.Origin(), n.Path(), err)
	}
}

// parseList is parse for each item of a list; nil if there is none.
func parseList[T any](n *yamltree.Node, problems *strict.Problems, read func(string) (T, error)) []T {
	if n == nil || !n.Is(yamltree.List, problems) {
		return nil
	}
	all := make([]T, 0, n.Len())
	for item := range n.Items(problems) {
		parse(item, problems, func(text string) error {
			one, err := read(text)
			all = append(all, one)
			return err
		})
	}
	return all
}

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return addr, fmt.Errorf("%s is not an address; write it like 192.168.77.1 or fd00:77::1", strict.Quote(text))
	}
	return addr, nil
}

func parseMAC(text string) (peer.MAC, error) {
	mac, err := peer.ParseMAC(text)
	if err != nil {
		return mac, fmt.Errorf("%s is not an Ethernet address; write it like 02:00:00:00:00:01, or remove the key", strict.Quote(text))
	}
	return mac, nil
}

func parseKey(text string) (peer.Fingerprint, error) {
	key, err := peer.ParseFingerprint(text)
	if err != nil {
		return key, fmt.Errorf("%s is not a fingerprint; write the %d hexadecimal digits that `weft keygen` prints, or remove the key", strict.Quote(text), hex.EncodedLen(len(key)))
	}
	return key, nil
}
