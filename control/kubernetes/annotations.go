package kubernetes

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	core "k8s.io/api/core/v1"

	"weft/control"
	"weft/internal/strict"
	"weft/peer"
)

// weft's annotations of a Node.
const (
	annotationPrefix = "weft.network/"

	// annotationEndpoint is where the node receives datagrams: ADDRESS:PORT.
	annotationEndpoint = annotationPrefix + "endpoint"

	// annotationAddresses are the node's further addresses, with commas between them.
	annotationAddresses = annotationPrefix + "addresses"

	// annotationKey is the fingerprint of its key, as `weft keygen` prints it.
	annotationKey = annotationPrefix + "key"

	// annotationVTEPMAC is the Ethernet address of a node that is a kernel VXLAN device.
	// Whoever runs such a node writes it; a node with weftd must have none.
	annotationVTEPMAC = annotationPrefix + "vtep-mac"

	// annotationOverride is for administrators: the ADDRESS or ADDRESS:PORT at which a node
	// is to be reached, whatever it takes for its own.
	annotationOverride = annotationPrefix + "override-endpoint"
)

// maxAnnotation is more bytes than any annotation has that is right.
const maxAnnotation = 256

// isMember says whether a Node is one of the overlay's.
func isMember(n *core.Node, o Options) bool {
	return isWeft(n) || o.FlannelCompat && n.Annotations[flannelManaged] == "true"
}

func isWeft(n *core.Node) bool { return has(n, annotationEndpoint, annotationKey, annotationVTEPMAC) }

// readNode returns the node that a member's Node describes, or all that is wrong with it;
// then the node has its name and origin only.
func readNode(n *core.Node, o Options) (control.Node, []error) {
	r := reader{object: n, node: control.Node{Name: n.Name, Origin: "Node " + n.Name}}
	for _, text := range n.Spec.PodCIDRs {
		p, err := strict.ParsePrefix(text)
		if err != nil {
			r.wrong = append(r.wrong, fmt.Errorf("spec.podCIDRs: %w", err))
		}
		r.node.PodCIDRs = append(r.node.PodCIDRs, p)
	}
	if isWeft(n) {
		r.weft()
	} else {
		r.flannel(o.VNI)
	}
	if len(r.wrong) > 0 {
		return control.Node{Name: r.node.Name, Origin: r.node.Origin}, r.wrong
	}
	return r.node, nil
}

func has(n *core.Node, annotations ...string) bool {
	for _, key := range annotations {
		if _, ok := n.Annotations[key]; ok {
			return true
		}
	}
	return false
}

// reader reads a Node's annotations into a node.
type reader struct {
	object *core.Node
	node   control.Node
	wrong  []error
}

// weft reads what a node with weftd, or an administrator, has written.
func (r *reader) weft() {
	r.required(annotationEndpoint, func(text string) (err error) {
		r.node.Endpoint, err = strict.ParseAddrPort(text)
		return err
	})
	r.optional(annotationAddresses, func(text string) error {
		for item := range strings.SplitSeq(text, ",") {
			addr, err := netip.ParseAddr(item)
			if err != nil {
				return fmt.Errorf("%s is not an address; write them like 192.168.78.1,fd00:78::1, or remove the annotation", strict.Quote(item))
			}
			r.node.Addresses = append(r.node.Addresses, addr)
		}
		return nil
	})
	r.optional(annotationKey, func(text string) (err error) {
		if r.node.Key, err = peer.ParseFingerprint(text); err != nil {
			return fmt.Errorf("%s is not a fingerprint; write the %d hexadecimal digits that `weft keygen` prints, or remove the annotation", strict.Quote(text), hex.EncodedLen(len(r.node.Key)))
		}
		return nil
	})
	r.optional(annotationVTEPMAC, func(text string) (err error) {
		if r.node.VTEPMAC, err = peer.ParseMAC(text); err != nil {
			return fmt.Errorf("%s is not an Ethernet address; write it like 02:00:00:00:00:01, or remove the annotation", strict.Quote(text))
		}
		return nil
	})
}

// required hands an annotation to parse.
func (r *reader) required(key string, parse func(text string) error) {
	if !has(r.object, key) {
		r.wrong = append(r.wrong, fmt.Errorf("the annotation %s is missing", key))
		return
	}
	r.optional(key, parse)
}

// optional hands an annotation to parse if it is there.
func (r *reader) optional(key string, parse func(text string) error) {
	text, ok := r.object.Annotations[key]
	if !ok {
		return
	}
	err := fmt.Errorf("%s has more than %d bytes", strict.Quote(text), maxAnnotation)
	if len(text) <= maxAnnotation {
		err = parse(text)
	}
	if err != nil {
		r.wrong = append(r.wrong, fmt.Errorf("the annotation %s: %w", key, err))
	}
}

// parseOverride reads an override; without a port it has the given one.
func parseOverride(text string, port uint16) (netip.AddrPort, error) {
	if len(text) > maxAnnotation {
		return netip.AddrPort{}, fmt.Errorf("%s has more than %d bytes", strict.Quote(text), maxAnnotation)
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		endpoint := netip.AddrPortFrom(addr, port)
		return endpoint, strict.CheckAddrPort(endpoint)
	}
	return strict.ParseAddrPort(text)
}
