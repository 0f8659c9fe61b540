package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"weft/internal/family"
	"weft/internal/strict"
	"weft/peer"
)

// flannel's annotations of a Node, as its subnet manager for Kubernetes has them; see
// https://github.com/flannel-io/flannel/blob/master/pkg/subnet/kube/annotations.go.
const (
	flannelPrefix = "flannel.alpha.coreos.com/"

	flannelManaged    = flannelPrefix + "kube-subnet-manager"
	flannelBackend    = flannelPrefix + "backend-type"
	flannelData       = flannelPrefix + "backend-data"
	flannelV6Data     = flannelPrefix + "backend-v6-data"
	flannelPublicIP   = flannelPrefix + "public-ip"
	flannelPublicIPv6 = flannelPrefix + "public-ipv6"
)

// flannelPort is where flannel's nodes receive: the kernel's default for VXLAN, as long as
// flannel's own configuration names no other. Their annotations don't tell.
const flannelPort = 8472

// noData is what flannel writes as the data of a family that it doesn't serve.
const noData = "null"

// flannelVXLAN is the data of the backend vxlan.
type flannelVXLAN struct {
	VNI     uint32
	VtepMAC string
}

// flannel reads what a node with flannel has written. It has a VXLAN device for each family,
// with its own MAC and its own outer address, and sends pods' packets of a family out of that
// family's device only. A peer here has one endpoint: IPv4's if there is one, and behind it
// the pod CIDRs of its family alone.
func (r *reader) flannel(vni uint32) {
	if backend := r.object.Annotations[flannelBackend]; backend != "vxlan" {
		r.wrong = append(r.wrong, fmt.Errorf("flannel's backend is %s there, and not vxlan; remove the Node's flannel annotations, or change flannel's configuration", strict.Quote(backend)))
		return
	}
	data, public, of := flannelData, flannelPublicIP, family.IPv4
	if text, ok := r.object.Annotations[flannelData]; !ok || text == noData {
		data, public, of = flannelV6Data, flannelPublicIPv6, family.IPv6
	}
	var addr netip.Addr
	r.required(public, func(text string) (err error) {
		if addr, err = netip.ParseAddr(text); err != nil || family.Of(addr) != of {
			return fmt.Errorf("%s is not an address of its family", strict.Quote(text))
		}
		r.node.Endpoint = netip.AddrPortFrom(addr, flannelPort)
		return strict.CheckAddrPort(r.node.Endpoint)
	})
	r.required(data, func(text string) (err error) {
		r.node.VTEPMAC, err = parseFlannelData(text, vni)
		return err
	})
	r.node.PodCIDRs = of.Prefixes(r.node.PodCIDRs)
}

func parseFlannelData(text string, vni uint32) (peer.MAC, error) {
	var data flannelVXLAN
	if err := json.Unmarshal([]byte(text), &data); err != nil {
		return peer.MAC{}, fmt.Errorf("%s is not data of flannel's backend vxlan", strict.Quote(text))
	}
	if data.VNI != vni {
		return peer.MAC{}, fmt.Errorf("flannel's VNI is %d there, and this node's %d; give both the same one, here under the configuration's key vxlan.vni", data.VNI, vni)
	}
	mac, err := peer.ParseMAC(data.VtepMAC)
	if err != nil {
		return peer.MAC{}, errors.New(strict.Quote(data.VtepMAC) + " is not an Ethernet address")
	}
	return mac, nil
}

// addFlannel adds the annotations by which flannel's nodes take this one for one of theirs.
// They are of the endpoint's family only. A flannel that serves both families refuses a node
// that has not both, so weft can't join nodes of a flannel with dual stack.
func addFlannel(want map[string]string, node string, endpoint netip.Addr, vni uint32) {
	data, _ := json.Marshal(flannelVXLAN{vni, peer.DeriveMAC(node).String()}) // a number and a string
	want[flannelManaged] = "true"
	want[flannelBackend] = "vxlan"
	want[flannelData], want[flannelPublicIP] = string(data), endpoint.String()
	want[flannelV6Data], want[flannelPublicIPv6] = "", ""
	if endpoint.Is6() {
		want[flannelV6Data], want[flannelPublicIPv6] = string(data), endpoint.String()
		want[flannelData], want[flannelPublicIP] = noData, ""
	}
}
