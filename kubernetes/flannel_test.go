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

func TestAClusterMovesFromFlannelToWeftNodeByNode(t *testing.T) {
	r := newFlannelRig(t, flannelIPv4, 4)
	started := time.Now()
	node1, node4 := r.startFlannel(t, r.node(1)), r.startFlannel(t, r.node(4))
	t.Logf("flannel was ready on two nodes after %v", time.Since(started).Round(time.Millisecond))
	pod1, pod4 := node1.addPod(t, "pod1"), node4.addPod(t, "pod4")
	r.startWeft(t, r.node(2))
	r.startWeft(t, r.node(3))
	pod2, pod3 := r.addPod(t, r.node(2), "pod2"), r.addPod(t, r.node(3), "pod3")

	t.Run("pods of flannel's nodes and weft's reach each other", func(t *testing.T) {
		pods := []*testnet.Pod{pod1, pod2, pod3, pod4}
		expectPings(t, pods)
		expectTransfers(t, 1450, pods...)
		for _, pod := range pods {
			if out, err := pod.Exec(t.Context(), "ip", "link", "show", testnet.PodLink); err != nil || !strings.Contains(out, " mtu 1450 ") {
				t.Errorf("the interface of %s: %s, %v", pod.PodName, out, err)
			}
		}
	})
	t.Run("nodes and the others' pods reach each other", func(t *testing.T) {
		for _, way := range []struct {
			from *testnet.Namespace
			to   string
		}{
			{node1.Namespace, pod2.Addrs[0].String()},
			{r.node(2).Namespace, pod1.Addrs[0].String()},
			{pod1.Namespace, "192.168.77.2"},
			{pod2.Namespace, "192.168.77.1"},
		} {
			if _, err := way.from.Exec(t.Context(), "ping", "-c", "1", "-W", "5", way.to); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("flannel takes weft's nodes for its own", func(t *testing.T) {
		for _, f := range []*flannelNode{node1, node4} {
			f.awaitEntries(t, 2, true)
			f.awaitEntries(t, 3, true)
		}
	})
	t.Run("weftd does not start beside flannel, and leaves its annotations alone", func(t *testing.T) {
		before := r.annotations(t, "node1")
		r.giveToken(t, "node1")
		err := r.node(1).Start(t.Context())
		if err == nil || !strings.Contains(err.Error(), "port 0.0.0.0:8472 is taken: is another weftd running in this network namespace, or a VXLAN device such as flannel.1?") {
			t.Errorf("it says: %v", err)
		}
		if err := r.node(1).Stop(t.Context()); err == nil {
			t.Error("it runs")
		}
		if after := r.annotations(t, "node1"); !maps.Equal(before, after) {
			t.Errorf("the annotations were %v, and are %v", before, after)
		}
	})

	t.Run("flanneld does not start beside weftd, and does no harm", func(t *testing.T) {
		err := r.newFlannel(t, r.node(2)).flanneld.Start(t.Context())
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("it says: %v", err)
		}
		node4.awaitEntries(t, 2, true)
		expectPings(t, []*testnet.Pod{pod2, pod3, pod4})
	})

	undisturbed := startPing(t, pod4, pod2)
	t.Run("a node moves to weft, and the others follow", func(t *testing.T) {
		node1.leave(t)
		started := time.Now()
		r.startWeft(t, r.node(1))
		pod1 = r.addPod(t, r.node(1), "pod1-of-weft")
		node4.awaitEntries(t, 1, true)
		for _, pod := range []*testnet.Pod{pod2, pod3, pod4} {
			expectPings(t, []*testnet.Pod{pod1, pod})
		}
		t.Logf("all reached a pod of the node %v after weftd was started", time.Since(started).Round(time.Millisecond))
		expectTransfers(t, 1450, pod1, pod2, pod4)
	})
	t.Run("pods of other nodes lose no packet meanwhile", func(t *testing.T) { undisturbed.expectNoLoss(t) })
	t.Run("flannel finds weft's nodes again after a crash", func(t *testing.T) {
		node4.flanneld.Kill()
		// As when the machine has crashed.
		if _, err := node4.Exec(t.Context(), "ip", "link", "delete", "flannel.1"); err != nil {
			t.Fatal(err)
		}
		node4.start(t)
		for number := 1; number <= 3; number++ {
			node4.awaitEntries(t, number, true)
		}
		expectPings(t, []*testnet.Pod{pod1, pod4})
	})

	t.Run("a node of weft's that is deleted is gone for flannel and weft", func(t *testing.T) {
		if err := r.node(3).Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.admin.CoreV1().Nodes().Delete(t.Context(), "node3", meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		node4.awaitEntries(t, 3, false)
		awaitStatus(t, r.node(2), peersAre("node1", "node4"))
	})
	t.Run("it comes back as a new one", func(t *testing.T) {
		r.makeNode(t, r.node(3), "10.244.3.0/24")
		r.startWeft(t, r.node(3))
		expectPings(t, []*testnet.Pod{pod1, pod2, pod3, pod4})
	})
	t.Run("a node goes back to flannel", func(t *testing.T) {
		if err := r.node(1).DeletePod(t.Context(), "pod1-of-weft"); err != nil {
			t.Fatal(err)
		}
		if err := r.node(1).Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		forget := []byte(`{"metadata":{"annotations":{"weft.network/endpoint":null}}}`)
		if _, err := r.admin.CoreV1().Nodes().Patch(t.Context(), "node1", types.MergePatchType, forget, meta.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		node1.start(t)
		pod1 = node1.addPod(t, "pod1-again")
		expectPings(t, []*testnet.Pod{pod1, pod2, pod3, pod4})
		expectTransfers(t, 1450, pod1, pod2)
	})
}

func TestPodsOfFlannelWithIPv6AloneAndOfWeftReachEachOther(t *testing.T) {
	r := newFlannelRig(t, flannelIPv6, 2)
	node1 := r.startFlannel(t, r.node(1))
	pod1 := node1.addPod(t, "pod1")
	r.startWeft(t, r.node(2))
	pod2 := r.addPod(t, r.node(2), "pod2")
	node1.awaitEntries(t, 2, true)
	expectPings(t, []*testnet.Pod{pod1, pod2})
	// flannel gives its pods 1450 bytes here too, of which 20 are too many.
	expectTransfers(t, 1430, pod1, pod2)
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
	received := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- err
			return
		}
		defer conn.Close()
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
	defer context.AfterFunc(ctx, func() { errors.Join(conn.Close(), listener.Close()) })()
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
