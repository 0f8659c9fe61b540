package cniplugin

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	"weft/cniplugin/wiring"
	"weft/ipam"
)

// FuzzRequest has a call be anything. What is accepted must be safe to make names, paths
// and addresses of.
func FuzzRequest(f *testing.F) {
	f.Add("pod", "eth0", "K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;IP=10.244.1.9;MAC=02:00:00:00:00:01", []byte(`{
		"cniVersion":"1.1.0","name":"weft","mtu":1300,"runtimeConfig":{"ips":["10.244.1.7/24"]},
		"ipam":{"ranges":[[{"subnet":"10.9.0.0/24","rangeStart":"10.9.0.9"}]],"reserved":["10.9.0.1"],"cooldown":"3s",
		"routes":[{"dst":"::/0","gw":"fe80::1"}]},"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"}]},
		"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}`))
	f.Add("../pod", "eth0/..", "IP=", []byte(`{"ipam":{"ranges":[[]]}}`))
	f.Add("pod", "eth0", ";;=;", []byte(`{"ipam":{"type":"../x","ranges":[[{"subnet":"::ffff:10.0.0.0/120"}]]},"prevResult":{}}`))
	f.Add("pod", "eth0", "", []byte(`null`))
	f.Fuzz(func(t *testing.T, containerID, ifName, args string, stdin []byte) {
		req, err := parseRequest(&skel.CmdArgs{ContainerID: containerID, IfName: ifName, Args: args, Netns: "/n", StdinData: stdin})
		if err != nil {
			if cniError(err) == nil {
				t.Error("an error without a code")
			}
			return
		}
		w := wiring.New(ipam.Lease{Attachment: req.attachment, Addresses: req.wanted, Pod: req.pod})
		if strings.ContainsAny(req.attachment.ContainerID, "/ ") {
			t.Errorf("no veth's alias could name the container %q", req.attachment.ContainerID)
		}
		if strings.ContainsAny(w.HostName+w.PodName, "/ %") || len(w.HostName) > 15 || len(w.PodName) > 15 {
			t.Errorf("the wiring %+v", w)
		}
		if req.mac != nil && (len(req.mac) != 6 || req.mac[0]&1 != 0) {
			t.Errorf("the MAC %s", req.mac)
		}
		for _, addr := range w.Addresses {
			if !addr.IsValid() || addr.Zone() != "" || addr.Is4In6() {
				t.Errorf("the address %s", addr)
			}
		}
		_ = req.conf.IPAM.check()
		_ = w.SetRoutes(req.conf.IPAM.Routes)
		if prev, err := req.conf.prevResult(); err == nil {
			_ = podInterface(prev, req)
			_ = newResult(w, req, prev)
		}
	})
}
