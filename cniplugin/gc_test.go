package cniplugin

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"

	"weft/cniplugin/leases"
	"weft/ipam"
)

// live starts a process that lives in the namespace until the test ends it.
func (n namespace) live(t *testing.T) *exec.Cmd {
	t.Helper()
	process := exec.Command("sleep", "infinity")
	if err := n.Do(func(ns.NetNS) error { return process.Start() }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	return process
}

// attachPod adds a pod without any process in its namespace.
func (n *node) attachPod(containerID string) namespace {
	n.t.Helper()
	pod := newNamespace(n.t)
	if err := n.call(n.plugin.Add, n.args(containerID, pod.Path())); err != nil {
		n.t.Fatal(err)
	}
	return pod
}

// gc calls GC with a list of valid containers, or without one.
func (n *node) gc(valid []string, told bool) error {
	n.t.Helper()
	conf := n.conf("1.1.0")
	if told {
		list := []types.GCAttachment{}
		for _, id := range valid {
			list = append(list, types.GCAttachment{ContainerID: id, IfName: "eth0"})
		}
		conf["cni.dev/valid-attachments"] = list
	}
	return n.call(n.plugin.GC, &skel.CmdArgs{StdinData: encode(n.t, conf)})
}

func (n *node) requireLeases(want ...string) {
	n.t.Helper()
	var have, veths []string
	for _, l := range n.leases() {
		have = append(have, l.ContainerID)
		veths = append(veths, l.Veth)
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		n.t.Errorf("leases of %v, want %v", have, want)
	}
	slices.Sort(veths)
	if links := slices.Sorted(slices.Values(n.podLinks())); !slices.Equal(veths, links) {
		n.t.Errorf("veths %v, leases for %v", links, veths)
	}
}

func TestGCFreesWhatIsNotInTheListAndLeavesTheRest(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	for _, id := range []string{"a", "b", "c"} {
		n.attachPod(id)
	}
	if err := n.gc([]string{"b"}, true); err != nil {
		t.Fatal(err)
	}
	n.requireLeases("b")
	if err := n.gc(nil, true); err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
}

// With a wrong list, GC keeps and names what visibly runs.
func TestGCKeepsWhatRuns(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	n.attachPod("ended")
	process := n.attachPod("running").live(t)
	err := n.gc(nil, true)
	requireCode(t, err, CodeStillRuns)
	for _, part := range []string{"running/eth0", "10.244.1.3", strconv.Itoa(process.Process.Pid)} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	n.requireLeases("running")
	_ = process.Process.Kill()
	_ = process.Wait()
	if err := n.gc(nil, true); err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
}

func TestGCLeavesWhatIsBeingAttachedAlone(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.attachPod("pod")
	store, err := ipam.Open(n.stateDir, "weft")
	if err != nil {
		t.Fatal(err)
	}
	release, err := store.Hold(t.Context(), ipam.Attachment{ContainerID: "pod", IfName: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	n.plugin.lockWait = 50 * time.Millisecond
	requireCode(t, n.gc(nil, true), CodeStillRuns)
	n.requireLeases("pod")
	release()
	if err := n.gc(nil, true); err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
}

func TestGCWithoutAListFreesOnlyWhatIsGone(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.attachPod("whole")
	n.attachPod("gone").Close() // and with the namespace its veth
	n.waitForVeths(1)
	if err := n.gc(nil, false); err != nil {
		t.Fatal(err)
	}
	n.requireLeases("whole")
}

func TestGCKnowsItsOwnNetworkOnly(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.attachPod("pod")
	conf := n.conf("1.1.0")
	conf["name"], conf["cni.dev/valid-attachments"] = "other", []any{}
	if err := n.call(n.plugin.GC, &skel.CmdArgs{StdinData: encode(t, conf)}); err != nil {
		t.Fatal(err)
	}
	n.requireLeases("pod")
}

func TestGCRefusesWhatItCannotRead(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	requireCode(t, n.call(n.plugin.GC, &skel.CmdArgs{StdinData: []byte(`{"cni.dev/valid-attachments": 7}`)}), types.ErrDecodingFailure)
	conf := n.conf("1.1.0")
	conf["name"] = "../weft"
	requireCode(t, n.call(n.plugin.GC, &skel.CmdArgs{StdinData: encode(t, conf)}), types.ErrInvalidNetworkConfig)
	n.attachPod("pod")
	if err := os.Truncate(filepath.Join(n.stateDir, "ipam", "weft.json"), 20); err != nil {
		t.Fatal(err)
	}
	requireCode(t, n.gc(nil, true), CodeCorrupt)
	if len(n.podLinks()) != 1 {
		t.Error("a pod was detached without knowing what it holds")
	}
}

func TestGCThroughTheRuntime(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	list := n.list("1.1.0")
	for _, id := range []string{"a", "b"} {
		if _, err := n.cni.AddNetworkList(t.Context(), list, runtimeConf(id, newNamespace(t))); err != nil {
			t.Fatal(err)
		}
	}
	// The runtime can't DEL an attachment that it has forgotten.
	n.attachPod("forgotten")
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "a", IfName: "eth0"}}}
	if err := n.cni.GCNetworkList(t.Context(), list, args); err != nil {
		t.Fatal(err)
	}
	n.requireLeases("a")
	if err := n.cni.GCNetworkList(t.Context(), list, nil); err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
}

// waitForVeths returns when the kernel has removed what went with a namespace.
func (n *node) waitForVeths(want int) {
	n.t.Helper()
	eventually(n.t, strconv.Itoa(want)+" veths", func() bool { return len(n.podLinks()) == want })
}

// reconcile returns what was done, a line each.
func (n *node) reconcile() []string {
	n.t.Helper()
	var lines []string
	n.in(n.t, func() error {
		changes, err := leases.Reconcile(n.t.Context(), n.stateDir, "weft", nil)
		for _, c := range changes {
			lines = append(lines, c.String())
		}
		return err
	})
	return lines
}

// expect fails unless each line has its parts, separated by |, in it.
func expect(t *testing.T, lines []string, want ...string) {
	t.Helper()
	if len(lines) != len(want) {
		t.Fatalf("got %q, want %d", lines, len(want))
	}
	for i, line := range lines {
		for part := range strings.SplitSeq(want[i], "|") {
			if !strings.Contains(line, part) {
				t.Errorf("%q lacks %q", line, part)
			}
		}
	}
}

func TestWhatIsInOrderIsNotTouched(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	expect(t, n.reconcile())
	n.attachPod("pod")
	before := n.leases()
	expect(t, n.reconcile())
	if after := n.leases(); len(after) != 1 || after[0].Addresses[0] != before[0].Addresses[0] {
		t.Errorf("before %v, after %v", before, after)
	}
	n.requireLeases("pod")
}

func TestAfterARebootStaleLeasesAreFreed(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	for _, id := range []string{"a", "b"} {
		pod := n.attachPod(id)
		pod.Close()
	}
	n.waitForVeths(0)
	expect(t, n.reconcile(), "freed a/eth0|10.244.1.2|fd00:244:1::2|veth is gone", "freed b/eth0|10.244.1.3|veth is gone")
	n.requireNothingLeft()
}

// The reconciler cleans up after a killed ADD, unless another process works on the attachment.
func TestKilledAddIsCleanedUp(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	pod := newNamespace(t)
	killAt(t, n, "mark the veth as complete", pod)
	store, err := ipam.Open(n.stateDir, "weft")
	if err != nil {
		t.Fatal(err)
	}
	release, err := store.Hold(t.Context(), ipam.Attachment{ContainerID: "pod", IfName: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, n.reconcile())
	n.requireLeases("pod")
	release()
	expect(t, n.reconcile(), "freed pod/eth0|did not finish")
	n.requireNothingLeft()
}

func TestAPodThatHasLostItsLeaseGetsItBack(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	pod := newNamespace(t)
	args := n.args("pod", pod.Path())
	args.Args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"
	if err := n.call(n.plugin.Add, args); err != nil {
		t.Fatal(err)
	}
	held := n.leases()[0]
	if err := os.Remove(filepath.Join(n.stateDir, "ipam", "weft.json")); err != nil {
		t.Fatal(err)
	}
	expect(t, n.reconcile(), "adopted pod/eth0|default/web|10.244.1.2 fd00:244:1::2|not leased")
	got := n.leases()[0]
	if !slices.Equal(got.Addresses, held.Addresses) || got.Pod != held.Pod || got.Veth != held.Veth {
		t.Errorf("got %+v, want %+v", got, held)
	}
	expect(t, n.reconcile())
	if err := n.call(n.plugin.Del, args); err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
}

func TestAPodWhoseAddressIsLeasedToAnotherIsNamed(t *testing.T) {
	n := newNode(t, "10.244.1.0/24")
	n.attachPod("pod")
	if err := os.Remove(filepath.Join(n.stateDir, "ipam", "weft.json")); err != nil {
		t.Fatal(err)
	}
	store, err := ipam.Open(n.stateDir, "weft")
	if err != nil {
		t.Fatal(err)
	}
	other := ipam.Lease{Attachment: ipam.Attachment{ContainerID: "other", IfName: "eth0"}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2")}}
	if err := store.Record(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	expect(t, n.reconcile(), "kept pod/eth0|10.244.1.2 is held by other/eth0")
	if len(n.podLinks()) != 1 {
		t.Error("the pod was detached")
	}
}

// A damaged lease file, of whichever network, is rebuilt from the running pods.
func TestDamagedLeaseFileIsRebuilt(t *testing.T) {
	for _, network := range []string{"weft", "other"} {
		t.Run(network, func(t *testing.T) {
			n := newNode(t, families["dual stack"]...)
			n.attachPod("a")
			n.attachPod("b")
			n.attachTo("other", "of-another-network")
			path := filepath.Join(n.stateDir, "ipam", network+".json")
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
			requireCode(t, n.call(n.plugin.Add, n.args("c", newNamespace(t).Path())), CodeCorrupt)
			running := map[string]string{"weft": "2 running pods", "other": "1 running pods"}[network]
			expect(t, n.reconcile(), path+"|damaged|"+running+"|.damaged")
			n.requireLeases("a", "b", "of-another-network")
			if info, err := os.Stat(path + ".damaged"); err != nil || info.Size() != 100 {
				t.Errorf("the damaged file was not kept: %v", err)
			}
			n.attachPod("c")
			n.requireLeases("a", "b", "c", "of-another-network")
			expect(t, n.reconcile())
		})
	}
}

// attachTo attaches a pod to another network than weft.
func (n *node) attachTo(network, containerID string) {
	n.t.Helper()
	conf, args := n.conf("1.1.0"), n.args(containerID, newNamespace(n.t).Path())
	conf["name"] = network
	args.StdinData = encode(n.t, conf)
	if err := n.call(n.plugin.Add, args); err != nil {
		n.t.Fatal(err)
	}
}

// If the files of two networks are damaged, the pods' leases may be in either: they are reported,
// and no pod is detached or added.
func TestDamagedFilesOfTwoNetworks(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.attachPod("whole")
	n.attachPod("gone").Close()
	n.waitForVeths(1)
	for _, name := range []string{"weft", "other"} {
		if err := os.WriteFile(filepath.Join(n.stateDir, "ipam", name+".json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, n.reconcile(), "other.json|damaged", "weft.json|damaged")
	if len(n.podLinks()) != 1 {
		t.Error("the pod was detached")
	}
	requireCode(t, n.call(n.plugin.Add, n.args("late", newNamespace(t).Path())), CodeCorrupt)
}

func TestAVethWithoutANameIsOnlyNamed(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	pod := newNamespace(t)
	killAt(t, n, "mark the veth as complete", pod)
	if err := os.Remove(filepath.Join(n.stateDir, "ipam", "weft.json")); err != nil {
		t.Fatal(err)
	}
	expect(t, n.reconcile(), "kept "+n.podLinks()[0]+" 10.244.1.2: |ip link delete "+n.podLinks()[0])
}

func TestWhatCannotBeFreedNowIsNamed(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.attachPod("pod").Close()
	n.waitForVeths(0)
	inTheWay := filepath.Join(n.stateDir, "ipam", "weft.json.tmp")
	if err := os.MkdirAll(filepath.Join(inTheWay, "file"), 0o700); err != nil {
		t.Fatal(err)
	}
	expect(t, n.reconcile(), "kept pod/eth0 10.244.1.2: its veth is gone: |"+inTheWay+": is a directory")
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	expect(t, n.reconcile(), "freed pod/eth0")
	n.requireNothingLeft()
}

func TestALeaseIsReleasedByHandUnlessItsPodRuns(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.attachPod("ended")
	n.attachPod("running").live(t)
	store, err := ipam.Open(n.stateDir, "weft")
	if err != nil {
		t.Fatal(err)
	}
	n.in(t, func() error {
		found, err := leases.Survey([]*ipam.Store{store})
		if err != nil {
			return err
		}
		if len(found) != 2 || len(found[0].Processes) != 0 || len(found[1].Processes) != 1 {
			t.Errorf("found %+v", found)
		}
		if _, err := leases.Release(t.Context(), store, found[0], false); err != nil {
			return err
		}
		if _, err := leases.Release(t.Context(), store, found[1], false); err == nil || !strings.Contains(err.Error(), "--force") {
			t.Errorf("a running pod lost its lease: %v", err)
		}
		n.requireLeases("running")
		_, err = leases.Release(t.Context(), store, found[1], true)
		return err
	})
	n.requireNothingLeft()
}

func TestAReconcilerThatCannotReadSaysSo(t *testing.T) {
	if _, err := leases.Reconcile(t.Context(), "relative", "weft", nil); err == nil {
		t.Error("a relative folder was accepted")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := leases.Reconcile(t.Context(), file, "weft", nil); err == nil {
		t.Error("a file for a folder was accepted")
	}
}

// The reconciler restores what another program took from the host side of a pod's veth.
func TestReconcileRestoresTheHostSide(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	pod := n.attachPod("pod")
	veth := n.podLinks()[0]
	mend := func() []string {
		t.Helper()
		var lines []string
		n.in(t, func() error {
			changes, err := leases.Reconcile(t.Context(), n.stateDir, "weft", n.own)
			for _, c := range changes {
				lines = append(lines, c.String())
			}
			return err
		})
		return lines
	}
	expect(t, mend())
	for what, took := range map[string]struct {
		take [][]string
		want string
	}{
		"routes":    {[][]string{{"-4", "route", "flush", "proto", "94"}, {"-6", "route", "flush", "proto", "94"}}, "the route to 10.244.1.2"},
		"addresses": {[][]string{{"address", "flush", "dev", veth}}, "the address 169.254.1.1/32"},
		"IPv6":      {[][]string{{"-6", "address", "flush", "dev", veth}, {"-6", "route", "flush", "dev", veth}}, "the route to fd00:244:1::2"},
	} {
		t.Run(what, func(t *testing.T) {
			n.in(t, func() error {
				for _, args := range took.take {
					if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
						t.Fatalf("ip %s: %v: %s", args, err, out)
					}
				}
				return nil
			})
			expect(t, mend(), "rewired pod/eth0|another program|"+took.want)
			expect(t, mend())
			for _, lease := range n.leases() {
				for i, addr := range lease.Addresses {
					if got := dial(t, n.namespace, pod, addr); got != n.own[i] {
						t.Errorf("the pod saw %s, want %s", got, n.own[i])
					}
					if got := dial(t, pod, n.namespace, n.own[i]); got != addr {
						t.Errorf("the node saw %s, want %s", got, addr)
					}
				}
			}
		})
	}
	// A route that leads elsewhere is of another holder of the address.
	n.in(t, func() error {
		out, err := exec.Command("sh", "-c", "ip route del 10.244.1.2 && ip route add 10.244.1.2/32 dev weft0 scope link").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return nil
	})
	expect(t, mend(), "kept pod/eth0|the route to 10.244.1.2")
}
