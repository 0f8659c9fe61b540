package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/testnet"
)

const transferSize = 8 << 20

func TestPodsOfFlannelAndWeftConnect(t *testing.T) {
	for _, tt := range []struct {
		name   string
		family family

		// mtu is weft's. Over IPv6, flannel has its pods send 20 bytes too many.
		mtu int
	}{
		{"IPv4", flannelIPv4, 1450},
		{"IPv6", flannelIPv6, 1430},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newFlannelRig(t, tt.family, 3)
			started := time.Now()
			node1 := r.startFlannel(t, r.Node(1))
			t.Logf("flanneld was ready after %v", time.Since(started).Round(time.Millisecond))
			r.startWeft(t, r.Node(2))
			r.startWeft(t, r.Node(3))
			pods := []*testnet.Pod{node1.addPod(t, "pod1"), r.addPod(t, r.Node(2), "pod2"), r.addPod(t, r.Node(3), "pod3")}
			expectPings(t, pods)
			expectTransfers(t, tt.mtu, pods...)
			for i, pod := range pods {
				for j, node := range r.Cluster.Nodes() {
					if i == j {
						continue
					}
					expectPing(t, node.Namespace, pod.Addrs[0].String())
					expectPing(t, pod.Namespace, fmt.Sprintf(r.address, j+1))
				}
			}
		})
	}
}

func TestANodeMovesFromFlannelToWeftAndBack(t *testing.T) {
	r := newFlannelRig(t, flannelIPv4, 3)
	node1, node3 := r.startFlannel(t, r.Node(1)), r.startFlannel(t, r.Node(3))
	r.startWeft(t, r.Node(2))
	pod1, pod2, pod3 := node1.addPod(t, "pod1"), r.addPod(t, r.Node(2), "pod2"), node3.addPod(t, "pod3")
	expectPings(t, []*testnet.Pod{pod1, pod2, pod3})
	undisturbed := startPing(t, pod3, pod2)

	t.Run("weftd does not start beside flannel, and leaves its annotations alone", func(t *testing.T) {
		before := r.annotations(t, "node1")
		check(t, r.GiveToken(t.Context(), "node1"))
		if err := r.Node(1).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "the local network 10.244.1.0/24 on cni0 overlaps the cluster CIDRs") {
			t.Errorf("it says: %v", err)
		}
		r.Node(1).Kill() // what is left of it
		if after := r.annotations(t, "node1"); !maps.Equal(before, after) {
			t.Errorf("the annotations were %v, and are %v", before, after)
		}
	})
	t.Run("the others follow a node to weft", func(t *testing.T) {
		node1.leave(t)
		started := time.Now()
		r.startWeft(t, r.Node(1))
		pod1 = r.addPod(t, r.Node(1), "pod1-of-weft")
		node3.awaitEntries(t, 1, true)
		expectPings(t, []*testnet.Pod{pod1, pod2, pod3})
		t.Logf("all reached a pod of the node %v after weftd was started", time.Since(started).Round(time.Millisecond))
		expectTransfers(t, 1450, pod1, pod2, pod3)
	})
	t.Run("flanneld does not start beside weftd, and does no harm", func(t *testing.T) {
		if err := node1.flanneld.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("it says: %v", err)
		}
		node1.flanneld.Kill() // what is left of it
		node3.awaitEntries(t, 1, true)
		expectPings(t, []*testnet.Pod{pod1, pod2, pod3})
	})
	t.Run("the others follow a node back to flannel", func(t *testing.T) {
		if err := r.Node(1).DeletePod(t.Context(), "pod1-of-weft"); err != nil {
			t.Fatal(err)
		}
		if err := r.Node(1).Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Node(1).Exec(t.Context(), filepath.Join(weftPrograms, "weft"), "teardown", "--config", filepath.Join(r.Node(1).Dir(), "weft.yaml")); err != nil {
			t.Fatal(err)
		}
		forget := []byte(`{"metadata":{"annotations":{"weft.network/endpoint":null}}}`)
		if _, err := r.Admin.CoreV1().Nodes().Patch(t.Context(), "node1", types.MergePatchType, forget, meta.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		node1.start(t)
		pod1 = node1.addPod(t, "pod1-again")
		expectPings(t, []*testnet.Pod{pod1, pod2, pod3})
		expectTransfers(t, 1450, pod1, pod2, pod3)
	})
	undisturbed.expectNoLoss(t)
}

func TestFlannelSeesWeftsNodesComeAndGo(t *testing.T) {
	r := newFlannelRig(t, flannelIPv4, 3)
	node1 := r.startFlannel(t, r.Node(1))
	r.startWeft(t, r.Node(2))
	node1.awaitEntries(t, 2, true)
	r.startWeft(t, r.Node(3))
	node1.awaitEntries(t, 3, true)

	if err := r.Node(3).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Admin.CoreV1().Nodes().Delete(t.Context(), "node3", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	node1.awaitEntries(t, 3, false)
	awaitStatus(t, r.Node(2), PeersAre("node1"))

	// As when the machine crashes while a node comes back.
	node1.flanneld.Kill()
	if _, err := node1.Exec(t.Context(), "ip", "link", "delete", "flannel.1"); err != nil {
		t.Fatal(err)
	}
	makeNode(t, r.Weft, r.Node(3), "10.244.3.0/24")
	r.startWeft(t, r.Node(3))
	node1.start(t)
	node1.awaitEntries(t, 2, true)
	node1.awaitEntries(t, 3, true)
	expectPings(t, []*testnet.Pod{node1.addPod(t, "pod1"), r.addPod(t, r.Node(2), "pod2"), r.addPod(t, r.Node(3), "pod3")})
}

func expectPing(t *testing.T, from *testnet.Namespace, to string) {
	t.Helper()
	if _, err := from.Exec(t.Context(), "ping", "-c", "1", "-W", "5", to); err != nil {
		t.Error(err)
	}
}

// pinging is a ping that goes on.
type pinging struct {
	from, to *testnet.Pod
	stop     func() (output string)
}

func startPing(t *testing.T, from, to *testnet.Pod) *pinging {
	t.Helper()
	var output bytes.Buffer
	cmd := from.Command(t.Context(), "ping", "-q", "-i", "0.01", to.Addrs[0].String())
	cmd.Stdout = &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &pinging{from, to, func() string {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
		return output.String()
	}}
}

// expectNoLoss ends it. The last packet may be under way then.
func (p *pinging) expectNoLoss(t *testing.T) {
	t.Helper()
	output := p.stop()
	_, summary, _ := strings.Cut(output, "statistics ---\n")
	var sent, received int
	if _, err := fmt.Sscanf(summary, "%d packets transmitted, %d received", &sent, &received); err != nil || sent < 20 || received < sent-1 {
		t.Errorf("%s to %s: %v: %s", p.from.PodName, p.to.PodName, err, output)
	}
	t.Logf("%d of %d packets from %s to %s came back", received, sent, p.from.PodName, p.to.PodName)
}

// expectTransfers has all pods send each other some megabytes by TCP, and one packet as
// large as it may be.
func expectTransfers(t *testing.T, mtu int, pods ...*testnet.Pod) {
	t.Helper()
	for _, from := range pods {
		for _, to := range pods {
			if from == to {
				continue
			}
			addr, headers := to.Addrs[0], 20+8
			if addr.Is6() {
				headers = 40 + 8
			}
			if _, err := from.Exec(t.Context(), "ping", "-c", "1", "-W", "5", "-M", "do", "-s", strconv.Itoa(mtu-headers), addr.String()); err != nil {
				t.Errorf("a packet of %d bytes from %s to %s: %v", mtu, from.PodName, to.PodName, err)
			}
			started := time.Now()
			if err := transfer(t, from, to); err != nil {
				t.Errorf("from %s to %s: %v", from.PodName, to.PodName, err)
			}
			t.Logf("%s sent %s %d MB in %v", from.PodName, to.PodName, transferSize>>20, time.Since(started).Round(time.Millisecond))
		}
	}
}

func transfer(t *testing.T, from, to *testnet.Pod) error {
	ctx, cancel := context.WithTimeout(t.Context(), littleWhile)
	defer cancel()
	listener, err := to.Listen(ctx, "tcp", netip.AddrPortFrom(to.Addrs[0], 0).String())
	if err != nil {
		return err
	}
	defer listener.Close()
	deadline, _ := ctx.Deadline()
	received := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- err
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(deadline)
		if source := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); source != from.Addrs[0] {
			received <- fmt.Errorf("it comes from %s", source)
			return
		}
		same, err := readsAs(conn, content())
		if err == nil && !same {
			err = errors.New("what arrived is not what was sent")
		}
		received <- err
	}()
	conn, err := from.Dial(ctx, "tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(deadline)
	if _, err := io.Copy(conn, content()); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	return <-received
}

func content() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), transferSize) }

func readsAs(a, b io.Reader) (bool, error) {
	one, err := io.ReadAll(a)
	if err != nil {
		return false, err
	}
	other, err := io.ReadAll(b)
	return bytes.Equal(one, other), err
}
