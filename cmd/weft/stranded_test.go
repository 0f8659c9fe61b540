package main

import (
	"bytes"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"weft/internal/marks"
	"weft/internal/nftable"
	"weft/internal/nodefile"
	"weft/internal/testnet"
	"weft/ipam"
)

// weft ipam check fails for a pod whose node got another pod CIDR since, and if it runs in
// another network namespace than the node's.
func TestCheckNamesStrandedPods(t *testing.T) {
	testnet.InNewNamespace(t)
	const comment = "made by the test"
	if out, err := exec.Command("nft", `table inet weft { comment "`+comment+`"; }`).CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	state, run := t.TempDir(), t.TempDir()
	store, err := ipam.Open(state, "weft")
	if err != nil {
		t.Fatal(err)
	}
	for id, addr := range map[string]string{"old": "10.244.1.2", "new": "10.244.7.2"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group = "weft"+id, marks.PodLinkGroup
		veth := netlink.NewVeth(attrs)
		veth.PeerName = "peer" + id
		if err := netlink.LinkAdd(veth); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetAlias(veth, id+"/eth0 shop/"+id); err != nil {
			t.Fatal(err)
		}
		if err := store.Record(t.Context(), ipam.Lease{Attachment: ipam.Attachment{ContainerID: id, IfName: "eth0"},
			Pod: "shop/" + id, Veth: "weft" + id, Addresses: []netip.Addr{netip.MustParseAddr(addr)}}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(cidr string) (string, error) {
		t.Helper()
		node := nodefile.Node{PodCIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}, Guard: nftable.Identity{Comment: comment}}
		if err := nodefile.Write(run, node); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		c := newCommand()
		c.SetOut(&out)
		c.SetArgs([]string{"ipam", "check", "--state-dir", state, "--run-dir", run})
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	if out, err := check("10.244.0.0/16"); err != nil || out != "" {
		t.Errorf("with the pod CIDR that all have: %v, %s", err, out)
	}
	out, err := check("10.244.7.0/24")
	if err == nil || !strings.Contains(out, "shop/old") || !strings.Contains(out, "10.244.7.0/24") || strings.Contains(out, "shop/new") {
		t.Errorf("with another pod CIDR: %v, %s", err, out)
	}
	if out, err := exec.Command("nft", "delete table inet weft").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	if _, err := check("10.244.0.0/16"); err == nil || !strings.Contains(err.Error(), "network namespace") {
		t.Errorf("where no guard stands: %v", err)
	}
}
