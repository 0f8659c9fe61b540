package kubernetes

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/control"
	"weft/peer"
)

// fingerprint is one, as `weft keygen` prints it.
const fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// object is a Node with pod CIDRs and annotations, which are pairs of key and value.
func object(name string, podCIDRs []string, annotations ...string) *core.Node {
	n := &core.Node{ObjectMeta: meta.ObjectMeta{Name: name, Annotations: make(map[string]string)}}
	n.Spec.PodCIDRs = podCIDRs
	for i := 0; i < len(annotations); i += 2 {
		n.Annotations[annotations[i]] = annotations[i+1]
	}
	return n
}

func flannelObject(name string, podCIDRs ...string) *core.Node {
	return object(name, podCIDRs, flannelManaged, "true", flannelBackend, "vxlan",
		flannelData, `{"VNI":1,"VtepMAC":"aa:bb:cc:00:00:01"}`, flannelPublicIP, "192.168.77.9")
}

// said is what a node is, or what is wrong with it, in one line.
func said(n *core.Node, o Options) string {
	if !isMember(n, o) {
		return "no member"
	}
	node, wrong := readNode(n, o)
	if err := errors.Join(wrong...); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	text := fmt.Sprintf("%s %s %s", node.Name, node.Endpoint, node.PodCIDRs)
	if len(node.Addresses) > 0 {
		text += fmt.Sprintf(" also %s", node.Addresses)
	}
	if node.VTEPMAC != (peer.MAC{}) {
		text += " " + node.VTEPMAC.String()
	}
	if node.Key != (peer.Fingerprint{}) {
		text += " " + node.Key.String()[:8]
	}
	return text
}

func TestWhatANodeSaysIsRead(t *testing.T) {
	one, both := []string{"10.244.1.0/24"}, []string{"10.244.1.0/24", "fd00:244:0:1::/64"}
	long := strings.Repeat("1", 1000)
	for _, tt := range []struct {
		name   string
		object *core.Node
		want   string
	}{
		{"a node of another network", object("a", one, "example.com/endpoint", "192.168.77.1:9338"), "no member"},
		{"a node without weftd", object("a", one), "no member"},
		{"an override alone", object("a", one, annotationOverride, "192.168.77.1"), "no member"},
		{"a node", object("a", both, annotationEndpoint, "192.168.77.1:9338", annotationKey, fingerprint), "a 192.168.77.1:9338 [10.244.1.0/24 fd00:244:0:1::/64] 00112233"},
		{"IPv6", object("a", both, annotationEndpoint, "[fd00:77::1]:9338"), "a [fd00:77::1]:9338 [10.244.1.0/24 fd00:244:0:1::/64]"},
		{"further addresses", object("a", one, annotationEndpoint, "192.168.77.1:9338", annotationAddresses, "192.168.78.1,fd00:78::1"), "a 192.168.77.1:9338 [10.244.1.0/24] also [192.168.78.1 fd00:78::1]"},
		{"no addresses", object("a", one, annotationEndpoint, "192.168.77.1:9338", annotationAddresses, "192.168.78.1, node1"), `the annotation weft.network/addresses: " node1" is not an address; write them like 192.168.78.1,fd00:78::1, or remove the annotation`},
		{"a kernel VXLAN device", object("a", one, annotationEndpoint, "192.168.77.1:8472", annotationVTEPMAC, "aa:bb:cc:00:00:01"), "a 192.168.77.1:8472 [10.244.1.0/24] aa:bb:cc:00:00:01"},
		{"no pod CIDRs yet", object("a", nil, annotationEndpoint, "192.168.77.1:9338"), "a 192.168.77.1:9338 []"},
		{"no endpoint", object("a", one, annotationKey, fingerprint), "the annotation weft.network/endpoint is missing"},
		{"an empty endpoint", object("a", one, annotationEndpoint, ""), `the annotation weft.network/endpoint: "" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338`},
		{"a name for an endpoint", object("a", one, annotationEndpoint, "node1;reboot:1\n"), `the annotation weft.network/endpoint: "node1;reboot:1\n" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338`},
		{"a mapped address", object("a", one, annotationEndpoint, "[::ffff:192.168.77.1]:9338"), "the annotation weft.network/endpoint: [::ffff:192.168.77.1]:9338 is IPv4-mapped; write 192.168.77.1:9338"},
		{"a long endpoint", object("a", one, annotationEndpoint, long), `the annotation weft.network/endpoint: "` + long[:64] + `"... has more than 256 bytes`},
		{"everything wrong", object("a", []string{"10.244.1.1/24"}, annotationEndpoint, "x", annotationKey, "y", annotationVTEPMAC, "z"),
			`spec.podCIDRs: 10.244.1.1/24 has bits set behind its length; write 10.244.1.0/24; ` +
				`the annotation weft.network/endpoint: "x" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338; ` +
				`the annotation weft.network/key: "y" is not a fingerprint; write the 64 hexadecimal digits that ` + "`weft keygen`" + ` prints, or remove the annotation; ` +
				`the annotation weft.network/vtep-mac: "z" is not an Ethernet address; write it like 02:00:00:00:00:01, or remove the annotation`},
		{"flannel's, which counts for nothing here", flannelObject("a", one...), "no member"},
	} {
		if got := said(tt.object, Options{VNI: 1}); got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, got, tt.want)
		}
	}
}

func TestWhatFlannelSaysOfItsNodesIsRead(t *testing.T) {
	with := func(annotations ...string) *core.Node {
		n := flannelObject("a", "10.244.1.0/24", "fd00:244:0:1::/64")
		for i := 0; i < len(annotations); i += 2 {
			n.Annotations[annotations[i]] = annotations[i+1]
			if annotations[i+1] == "" {
				delete(n.Annotations, annotations[i])
			}
		}
		return n
	}
	const v6 = `{"VNI":1,"VtepMAC":"aa:bb:cc:00:00:06"}`
	for _, tt := range []struct {
		name   string
		object *core.Node
		want   string
	}{
		{"a node", with(), "a 192.168.77.9:8472 [10.244.1.0/24] aa:bb:cc:00:00:01"},
		{"both families", with(flannelV6Data, v6, flannelPublicIPv6, "fd00:77::9"), "a 192.168.77.9:8472 [10.244.1.0/24] aa:bb:cc:00:00:01"},
		{"IPv6 alone", with(flannelData, "null", flannelPublicIP, "", flannelV6Data, v6, flannelPublicIPv6, "fd00:77::9"), "a [fd00:77::9]:8472 [fd00:244:0:1::/64] aa:bb:cc:00:00:06"},
		{"a node of weft's too", with(annotationEndpoint, "192.168.77.1:9338"), "a 192.168.77.1:9338 [10.244.1.0/24 fd00:244:0:1::/64]"},
		{"not managed by Kubernetes", with(flannelManaged, "false"), "no member"},
		{"another backend", with(flannelBackend, "host-gw"), `flannel's backend is "host-gw" there, and not vxlan; remove the Node's flannel annotations, or change flannel's configuration`},
		{"another VNI", with(flannelData, `{"VNI":2,"VtepMAC":"aa:bb:cc:00:00:01"}`), "the annotation flannel.alpha.coreos.com/backend-data: flannel's VNI is 2 there, and this node's 1; give both the same one, here under the configuration's key vxlan.vni"},
		{"no data", with(flannelData, ""), "the annotation flannel.alpha.coreos.com/public-ipv6 is missing; the annotation flannel.alpha.coreos.com/backend-v6-data is missing"},
		{"no JSON", with(flannelData, "{"), `the annotation flannel.alpha.coreos.com/backend-data: "{" is not data of flannel's backend vxlan`},
		{"no MAC", with(flannelData, `{"VNI":1}`), `the annotation flannel.alpha.coreos.com/backend-data: "" is not an Ethernet address`},
		{"a VNI that is no number", with(flannelData, `{"VNI":-1}`), `the annotation flannel.alpha.coreos.com/backend-data: "{\"VNI\":-1}" is not data of flannel's backend vxlan`},
		{"an IPv6 address for IPv4", with(flannelPublicIP, "fd00:77::9"), `the annotation flannel.alpha.coreos.com/public-ip: "fd00:77::9" is not an address of its family`},
	} {
		if got := said(tt.object, Options{FlannelCompat: true, VNI: 1}); got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, got, tt.want)
		}
	}
}

// What is wrong with one node keeps out no other, and is reported.
func TestAWrongNodeIsRefusedAlone(t *testing.T) {
	all := newNodes(Options{Node: "node1"}, nil)
	all.put(object("node1", []string{"10.244.1.0/24"}, annotationEndpoint, "192.168.77.1:9338"))
	all.put(object("node2", []string{"10.244.2.0/24"}, annotationEndpoint, "\x1b[31m", annotationKey, "x"))
	all.put(object("node3", []string{"10.244.3.0/24"}, annotationEndpoint, "192.168.77.3:9338"))
	plan, err := control.NewPlan(all.state(), control.Options{Node: "node1", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `Node node2: the annotation weft.network/endpoint: "\x1b[31m" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338
Node node2: the annotation weft.network/key: "x" is not a fingerprint; write the 64 hexadecimal digits that ` + "`weft keygen`" + ` prints, or remove the annotation`
	if len(plan.Peers) != 1 || plan.Peers[0].Name != "node3" || plan.Refused == nil || plan.Refused.Error() != want {
		t.Errorf("peers %v; refused: %v", plan.Peers, plan.Refused)
	}
}

func TestTheOldestNodeStandsFirst(t *testing.T) {
	all := newNodes(Options{}, nil)
	for i, name := range []string{"new", "b", "a", "old"} {
		n := object(name, nil, annotationEndpoint, fmt.Sprintf("192.168.77.%d:9338", i+1))
		n.CreationTimestamp = meta.Unix(map[string]int64{"new": 3000, "a": 2000, "b": 2000, "old": 1000}[name], 0)
		all.put(n)
	}
	var names []string
	state := all.state()
	for _, n := range state.Nodes {
		names = append(names, n.Name)
	}
	if diff := cmp.Diff([]string{"old", "a", "b", "new"}, names); diff != "" || !state.Registered || state.Origin != "kubernetes" {
		t.Errorf("%+v\n%s", state, diff)
	}
}

func TestOnlyWhatMattersIsNews(t *testing.T) {
	news := 0
	all := newNodes(Options{Node: "node1"}, func() { news++ })
	n := object("node2", nil)
	for _, tt := range []struct {
		name   string
		change func(n *core.Node)
		want   int
	}{
		{"a Node", func(*core.Node) {}, 0},
		{"its endpoint", func(n *core.Node) { n.Annotations[annotationEndpoint] = "192.168.77.2:9338" }, 1},
		{"a heartbeat", func(n *core.Node) {
			n.ResourceVersion = "7"
			n.Status.Conditions = []core.NodeCondition{{Type: core.NodeReady, LastHeartbeatTime: meta.NewTime(time.Now())}}
		}, 1},
		{"somebody else's annotation", func(n *core.Node) { n.Annotations["example.com/a"] = "b" }, 1},
		{"its pod CIDRs", func(n *core.Node) { n.Spec.PodCIDRs = []string{"10.244.2.0/24"} }, 2},
		{"its addresses", func(n *core.Node) { n.Status.Addresses = []core.NodeAddress{{Type: core.NodeInternalIP}} }, 2},
		{"an endpoint that is wrong", func(n *core.Node) { n.Annotations[annotationEndpoint] = "x" }, 3},
		{"the same", func(*core.Node) {}, 3},
		{"one that is wrong otherwise", func(n *core.Node) { n.Annotations[annotationEndpoint] = "y" }, 4},
		{"no annotation any more", func(n *core.Node) { n.Annotations = nil }, 5},
	} {
		n = n.DeepCopy()
		tt.change(n)
		if err := all.Update(n); err != nil {
			t.Fatal(err)
		}
		if news != tt.want {
			t.Errorf("%s: %d news; want %d", tt.name, news, tt.want)
		}
	}
}

func TestOfANodeLittleIsKept(t *testing.T) {
	all := newNodes(Options{Node: "node1"}, nil)
	n := object("node2", []string{"10.244.2.0/24"}, annotationEndpoint, strings.Repeat("1", 200_000), "example.com/big", strings.Repeat("x", 10_000))
	n.ManagedFields = make([]meta.ManagedFieldsEntry, 20)
	n.Status.Images = make([]core.ContainerImage, 50)
	n.Status.Conditions = []core.NodeCondition{{Type: core.NodeReady}, {Type: core.NodeNetworkUnavailable}}
	stripped := all.strip(n)
	if len(stripped.Annotations) != 1 || len(stripped.Annotations[annotationEndpoint]) != maxAnnotation+1 || stripped.ManagedFields != nil ||
		stripped.Status.Images != nil || stripped.Status.Conditions != nil {
		t.Errorf("%+v", stripped)
	}
	n.Name = "node1"
	if own := all.strip(n); len(own.Status.Conditions) != 1 || own.Status.Conditions[0].Type != core.NodeNetworkUnavailable {
		t.Errorf("of the own Node: %+v", own.Status)
	}
}

// Whatever the annotations are, a node is read whole, or refused with a short reason.
func FuzzAnnotations(f *testing.F) {
	f.Add("192.168.77.1:9338", fingerprint, "", "10.244.1.0/24", "true", "", "")
	f.Add("[fd00:77::1]:9338", "", "02:00:00:00:00:01", "fd00:244::/64", "", "null", "")
	f.Add("", "", "", "::ffff:10.244.1.0/120", "true", `{"VNI":1,"VtepMAC":"aa:bb:cc:00:00:01"}`, "192.168.77.9")
	f.Add("", "", "", "", "true", `{"VNI":1,"VtepMAC":{}}`, "fe80::1%eth0")
	f.Fuzz(func(t *testing.T, endpoint, key, mac, podCIDR, managed, data, public string) {
		n := object("node1", []string{podCIDR}, flannelBackend, "vxlan")
		for annotation, value := range map[string]string{annotationEndpoint: endpoint, annotationKey: key, annotationVTEPMAC: mac,
			flannelManaged: managed, flannelData: data, flannelPublicIP: public, flannelV6Data: data, flannelPublicIPv6: public} {
			if value != "" {
				n.Annotations[annotation] = value
			}
		}
		all := newNodes(Options{FlannelCompat: true, VNI: 1}, nil)
		all.put(n)
		state := all.state()
		if state.Refused != nil && (len(state.Refused.Error()) > 4<<10 || len(state.Nodes) > 0) {
			t.Errorf("refused, but %d nodes: %v", len(state.Nodes), state.Refused)
		}
		for _, node := range state.Nodes {
			if !node.Endpoint.IsValid() || node.Endpoint.Port() == 0 || node.Endpoint.Addr().Zone() != "" {
				t.Errorf("accepted, but: %+v", node)
			}
		}
		options := control.Options{Node: "node1", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
		_, _ = control.NewPlan(state, options) // may be refused, but not panic
		if got, err := parseOverride(public, 9338); err == nil && (!got.IsValid() || got.Addr().Zone() != "") {
			t.Errorf("override: %s", got)
		}
	})
}
