package scale

import (
	"fmt"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/control"
)

// annotations are what the weftd of a node writes (package control/kubernetes).
func annotations(n control.Node) map[string]string {
	return map[string]string{"weft.network/endpoint": n.Endpoint.String(), "weft.network/key": n.Key.String()}
}

// registered is the Node of one whose weftd has registered.
func registered(n control.Node) *core.Node {
	o := object(n)
	o.Annotations = annotations(n)
	return o
}

// object is a Node as kubelet and the controller manager make it, with about as many bytes
// as theirs have: what weftd has no use for is most of what it is sent.
func object(n control.Node) *core.Node {
	o := &core.Node{ObjectMeta: meta.ObjectMeta{Name: n.Name, Labels: map[string]string{
		"kubernetes.io/hostname": n.Name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
		"node.kubernetes.io/instance-type": "example.large",
		"topology.kubernetes.io/region":    "example-1", "topology.kubernetes.io/zone": "example-1a",
	}}}
	for _, p := range n.PodCIDRs {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, p.String())
	}
	o.Spec.PodCIDR = o.Spec.PodCIDRs[0]
	resources := core.ResourceList{
		core.ResourceCPU: resource.MustParse("8"), core.ResourceMemory: resource.MustParse("32Gi"),
		core.ResourcePods: resource.MustParse("110"), core.ResourceEphemeralStorage: resource.MustParse("100Gi"),
	}
	o.Status = core.NodeStatus{
		Capacity: resources, Allocatable: resources,
		Conditions: conditions(time.Now()),
		Addresses:  []core.NodeAddress{{Type: core.NodeInternalIP, Address: n.Endpoint.Addr().String()}, {Type: core.NodeHostName, Address: n.Name}},
		NodeInfo: core.NodeSystemInfo{
			MachineID: n.Key.String()[:32], SystemUUID: n.Key.String()[:32], BootID: n.Key.String()[:32], Architecture: "amd64", OperatingSystem: "linux",
			KernelVersion: "6.18.0", OSImage: "Debian GNU/Linux 12 (bookworm)", ContainerRuntimeVersion: "containerd://1.7.0",
			KubeletVersion: "v1.34.0",
		},
	}
	// kubelet lists 50 images at most (nodeStatusMaxImages), each with its digest and tag.
	for i := range 50 {
		o.Status.Images = append(o.Status.Images, core.ContainerImage{SizeBytes: 100 << 20, Names: []string{
			fmt.Sprintf("images.example.com/team/service-%d@sha256:%064x", i, i), fmt.Sprintf("registry.example.com/team/service-%d:v1.2.3", i),
		}})
	}
	return o
}

// conditions are those that kubelet writes with each heartbeat.
func conditions(now time.Time) (all []core.NodeCondition) {
	for _, c := range []core.NodeCondition{
		{Type: core.NodeMemoryPressure, Status: core.ConditionFalse, Reason: "KubeletHasSufficientMemory", Message: "kubelet has sufficient memory available"},
		{Type: core.NodeDiskPressure, Status: core.ConditionFalse, Reason: "KubeletHasNoDiskPressure", Message: "kubelet has no disk pressure"},
		{Type: core.NodePIDPressure, Status: core.ConditionFalse, Reason: "KubeletHasSufficientPID", Message: "kubelet has sufficient PID available"},
		{Type: core.NodeReady, Status: core.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"},
	} {
		c.LastHeartbeatTime, c.LastTransitionTime = meta.NewTime(now), meta.NewTime(now)
		all = append(all, c)
	}
	return all
}
