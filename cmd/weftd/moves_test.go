package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/testnet"
)

// An address that another host takes over is reached from everywhere.
func TestReassignedAddressIsReachedAtOnce(t *testing.T) {
	t.Parallel()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 2, Sealed: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	neighbour, far := addPod(t, node, "neighbour"), addPod(t, other, "far")
	addrs := []netip.Addr{netip.MustParseAddr("10.244.1.77"), netip.MustParseAddr("fd00:244:1::77")}
	clients := []*testnet.Namespace{neighbour.Namespace, far.Namespace, node.Namespace, other.Namespace}
	var holder *testnet.Namespace
	for _, name := range []string{"first", "second", "third"} {
		pod, err := network.AddNamespace(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if holder != nil {
			attach(t, "DEL", node, holder, addrs)
		}
		attach(t, "ADD", node, pod, addrs)
		holder = pod
		for _, addr := range addrs {
			answerDatagrams(t, pod, netip.AddrPortFrom(addr, 5000), name)
			for _, client := range clients {
				if err := reaches(t, client, pod, addr); err != nil {
					t.Errorf("the %s holder: %v", name, err)
				}
				// The same ports each time: connection tracking takes it for one flow.
				if answer := askDatagram(t, client, 5001, netip.AddrPortFrom(addr, 5000)); answer != name {
					t.Errorf("from %s, %q answers at %s instead of the %s holder", client.Name(), answer, addr, name)
				}
			}
		}
	}
	for _, pod := range []*testnet.Namespace{holder, neighbour.Namespace, far.Namespace} {
		expectPermanentNeighbours(t, pod, "dev", testnet.PodLink)
	}
	for line := range strings.Lines(run(t, node.Namespace, "ip", "-o", "link", "show", "group", "93")) {
		link, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		expectPermanentNeighbours(t, node.Namespace, "dev", link)
	}
}

// expectPermanentNeighbours fails unless no entry of those that ip neigh show selects is
// ever asked for again, and there is one.
func expectPermanentNeighbours(t *testing.T, at *testnet.Namespace, which ...string) {
	t.Helper()
	permanent := 0
	for line := range strings.Lines(run(t, at, "ip", append([]string{"neigh", "show", "nud", "all"}, which...)...)) {
		switch {
		case strings.Contains(line, "PERMANENT"):
			permanent++
		case !strings.Contains(line, "NOARP"): // multicast
			t.Errorf("in %s, a neighbour that may grow stale: %s", at.Name(), line)
		}
	}
	if permanent == 0 {
		t.Errorf("in %s, there is no neighbour on %s", at.Name(), which)
	}
}

// attach adds a pod that asks for its addresses, or removes it.
func attach(t *testing.T, command string, node *testnet.Node, pod *testnet.Namespace, addrs []netip.Addr) {
	t.Helper()
	var list struct {
		Name, CNIVersion string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal([]byte(read(t, conflist(node))), &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, list.CNIVersion
	stdin, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := node.Command(t.Context(), filepath.Join(binDir, "weft-cni"))
	cmd.Stdin = strings.NewReader(string(stdin))
	cmd.Env = append(cmd.Env, "CNI_COMMAND="+command, "CNI_CONTAINERID="+pod.Name(), "CNI_NETNS="+pod.Path(),
		"CNI_IFNAME="+testnet.PodLink, "CNI_PATH="+binDir, fmt.Sprintf("CNI_ARGS=IP=%s,%s", addrs[0], addrs[1]))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s of %s: %v: %s", command, pod.Name(), err, out)
	}
}

// answerDatagrams answers each datagram with a name.
func answerDatagrams(t *testing.T, at *testnet.Namespace, addr netip.AddrPort, name string) {
	t.Helper()
	conn, err := listenUDP(at, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for {
			_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 100))
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort([]byte(name), from)
		}
	}()
}

// askDatagram sends one datagram from a port and returns what is answered.
func askDatagram(t *testing.T, from *testnet.Namespace, port uint16, to netip.AddrPort) string {
	t.Helper()
	local := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		local = netip.IPv6Unspecified()
	}
	conn, err := listenUDP(from, netip.AddrPortFrom(local, port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort([]byte("who are you"), to); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(testnet.WaitLimit))
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	if err != nil {
		return err.Error()
	}
	return string(answer[:n])
}
