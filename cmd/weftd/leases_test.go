package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/testnet"
	"weft/ipam"
)

func stateDir(n *testnet.Node) string  { return filepath.Join(n.Dir(), "state") }
func leaseFile(n *testnet.Node) string { return filepath.Join(stateDir(n), "ipam", "weft.json") }

// weftIPAM runs the operator's command for leases on a node.
func weftIPAM(t *testing.T, node *testnet.Node, args ...string) outcome {
	t.Helper()
	return weft(t, node, append([]string{"ipam", "--state-dir", stateDir(node)}, args...)...)
}

// lease is one of those that `weft ipam list` shows.
type lease struct {
	ContainerID string
	Addresses   []netip.Addr
	Processes   []int
	Trouble     string
}

func leasesOf(t *testing.T, node *testnet.Node) map[string]lease {
	t.Helper()
	got := weftIPAM(t, node, "list", "-o", "json")
	var list struct{ Leases []lease }
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || got.status != 0 {
		t.Fatalf("weft ipam list: %v, exit status %d, %s%s", err, got.status, got.stderr, got.stdout)
	}
	leases := map[string]lease{}
	for _, l := range list.Leases {
		leases[l.ContainerID] = l
	}
	return leases
}

// vanish takes pods' namespaces away without a DEL, and returns when the kernel has
// removed their veths too.
func vanish(t *testing.T, pods ...*testnet.Pod) {
	t.Helper()
	for _, p := range pods {
		if out, err := exec.CommandContext(t.Context(), "ip", "netns", "del", p.Name()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	eventually(t, "the veths of the pods to go", func() error {
		for _, p := range pods {
			if l, ok := leasesOf(t, p.Node)[p.Name()]; ok && l.Trouble != "its veth is gone" {
				return fmt.Errorf("%+v", l)
			}
		}
		return nil
	})
}

// twoForPods leaves a node 10.244.1.2 and .3 for pods.
func twoForPods(weft map[string]any) {
	weft["ipam"] = map[string]any{"cooldown": "10m", "reserved": []string{
		"10.244.1.4", "10.244.1.5", "10.244.1.6/31", "10.244.1.8/29", "10.244.1.16/28", "10.244.1.32/27", "10.244.1.64/26", "10.244.1.128/25",
		"fd00:244:1::2"}}
}

// After a reboot weftd frees the leases before the runtime can add pods.
func TestRebootFreesStaleLeasesFirst(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1, Configure: twoForPods}).Nodes()[0]
	a, b := addPod(t, node, "a"), addPod(t, node, "b")
	if got, want := fmt.Sprint(a.Addrs, b.Addrs), "[10.244.1.2 fd00:244:1::3] [10.244.1.3 fd00:244:1::4]"; got != want {
		t.Fatalf("the pods have %s, want %s: the rest is reserved", got, want)
	}
	if _, err := node.AddPod(t.Context(), "c"); err == nil || !strings.Contains(err.Error(), "no free address in 10.244.1.0/24") {
		t.Errorf("a pod more than there are addresses: %v", err)
	}

	node.Kill()
	vanish(t, a, b)
	if err := os.RemoveAll(node.RunDir()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(node.RunDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(conflist(node)); err != nil {
		t.Fatal(err)
	}
	left := make(chan string, 10)
	w := watch(t, node, func(path string) {
		if path == conflist(node) {
			left <- read(t, leaseFile(node))
		}
	})
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.stop()
	content := <-left
	if !strings.Contains(content, `"leases": []`) || !strings.Contains(content, "10.244.1.3") {
		t.Errorf("when the conflist appears there are still leases, or nothing rests:\n%s", content)
	}
	log := logs(t, node)
	for _, pod := range []*testnet.Pod{a, b} {
		want := fmt.Sprintf("action=freed container=%s interface=eth0 pod=\"\" addresses=\"%v\" reason=\"its veth is gone\"", pod.Name(), pod.Addrs)
		if strings.Count(log, want) != 1 {
			t.Errorf("no single %s in the log:\n%s", want, log)
		}
	}

	if shown := weft(t, node, "status").stdout; !strings.Contains(shown, "leases         0 held, 4 cooling down; 0 of 2 IPv4 addresses leased (0 %)\n") {
		t.Errorf("weft status:\n%s", shown)
	}
	if got := metric(t, node, `weft_pool_addresses{family="ipv4",state="cooling_down"}`); got != "2" {
		t.Errorf("%s addresses of the pool cool down", got)
	}
	d := addPod(t, node, "d") // no other address is free, so cooling down ends early
	if !slices.Contains(slices.Concat(a.Addrs, b.Addrs), addrOf(t, d, false)) {
		t.Errorf("the pod has %v", d.Addrs)
	}
}

// `weft ipam` frees the lease of a pod that vanishes while weftd runs.
func TestOperatorFreesVanishedPod(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	a, b := addPod(t, node, "a"), addPod(t, node, "b")
	vanish(t, a)
	want := fmt.Sprintf("%s/eth0 %s %s: its veth is gone\n", a.Name(), a.Addrs[0], a.Addrs[1])
	if got := weftIPAM(t, node, "check"); got.status != 1 || got.stdout != "found "+want {
		t.Errorf("check: exit status %d, %s%s", got.status, got.stderr, got.stdout)
	}
	if got := weftIPAM(t, node, "gc"); got.status != 0 || got.stdout != "freed "+want {
		t.Errorf("gc: exit status %d, %s%s", got.status, got.stderr, got.stdout)
	}
	if got := weftIPAM(t, node, "check"); got.status != 0 || got.stdout != "" {
		t.Errorf("check: exit status %d, %s%s", got.status, got.stderr, got.stdout)
	}
	if leases := leasesOf(t, node); len(leases) != 1 || leases[b.Name()].Trouble != "" {
		t.Errorf("leases: %v", leases)
	}
	for name, want := range map[string]string{"weft_leases": "1", `weft_pool_addresses{family="ipv4",state="cooling_down"}`: "1", `weft_pool_addresses{family="ipv6",state="leased"}`: "1", "weft_leases_unreconciled": "0", `weft_reconciled_total{action="freed"}`: "0"} {
		if got := metric(t, node, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	pingGateway(t, b)
}

// pingGateway fails unless a pod reaches its node.
func pingGateway(t *testing.T, pod *testnet.Pod) {
	t.Helper()
	run(t, pod.Namespace, "ping", "-c1", "-W2", "10.244.1.1")
	run(t, pod.Namespace, "ping", "-c1", "-W2", "fd00:244:1::1")
}

func TestLeasesAreLookedAfterWhileWeftdIsDown(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	ended, running := addPod(t, node, "ended"), addPod(t, node, "running")
	process := running.Command(t.Context(), "sleep", "infinity")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Cancel(); _ = process.Wait() })
	pid := process.Process.Pid
	node.Kill()

	eventually(t, "the process to be seen", func() error { // it has to enter the namespace first
		if leases := leasesOf(t, node); !slices.Equal(leases[running.Name()].Processes, []int{pid}) || leases[ended.Name()].Processes != nil {
			return fmt.Errorf("%+v", leases)
		}
		return nil
	})
	list := weftIPAM(t, node, "list").stdout
	if !strings.Contains(list, " "+strconv.Itoa(pid)+" ") || !strings.Contains(list, "10.244.1.2, fd00:244:1::2  -    ") {
		t.Errorf("weft ipam list:\n%s", list)
	}
	if got := weftIPAM(t, node, "check"); got.status != 0 {
		t.Errorf("check: exit status %d, %s", got.status, got.stderr)
	}
	refusal := fmt.Sprintf("weft: the pod of %s/eth0 runs: processes [%d] run in its network namespace; end them, or use --force\n", running.Name(), pid)
	got := weftIPAM(t, node, "release", addrOf(t, ended, false).String(), addrOf(t, running, true).String())
	if got.status != 1 || got.stderr != refusal || !strings.HasPrefix(got.stdout, "freed "+ended.Name()+"/eth0 ") {
		t.Errorf("release: exit status %d, %s%s", got.status, got.stderr, got.stdout)
	}
	if leases := leasesOf(t, node); len(leases) != 1 || leases[running.Name()].Trouble != "" {
		t.Errorf("leases: %v", leases)
	}
	run(t, running.Namespace, "ping", "-c1", "-W2", "169.254.1.1") // what else it reaches is up to weftd
	got = weftIPAM(t, node, "release", "--force", running.Name())
	if got.status != 0 || got.stderr != "" || got.stdout != fmt.Sprintf("freed %s/eth0 %s %s: by hand\n", running.Name(), running.Addrs[0], running.Addrs[1]) {
		t.Errorf("release --force: exit status %d, %s%s", got.status, got.stderr, got.stdout)
	}
	if left := run(t, node.Namespace, "ip", "-br", "link", "show", "group", "93"); left != "" || len(leasesOf(t, node)) > 0 {
		t.Errorf("left: %s%v", left, leasesOf(t, node))
	}

	for _, args := range [][]string{{"list"}, {"check"}, {"gc"}, {"release", "10.244.1.2"}} {
		words := append([]string{"--reuid=65534", "--clear-groups", "--inh-caps=-all", everybodys(t, "weft"), "ipam", "--state-dir", stateDir(node)}, args...)
		nobody := finish(t, node.Command(t.Context(), "setpriv", words...))
		if want := "weft: not allowed to read the leases in " + stateDir(node) + ": run as root\n"; nobody.status != 1 || nobody.stderr != want || nobody.stdout != "" {
			t.Errorf("%v as nobody: exit status %d, %q; want 1, %q", args, nobody.status, nobody.stderr, want)
		}
	}
}

// The pods' connections continue.
func TestStartRebuildsDamagedLeaseFile(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	other := addPod(t, node, "other")
	before := leasesOf(t, node)
	connection := startExchange(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, false))
	node.Kill()
	damaged := strings.Replace(read(t, leaseFile(node)), "10.244.1.2", "10.244.1.7", 1)
	write(t, leaseFile(node), damaged)
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	connection.firstAfter(t, time.Now())
	connection.stop(t)
	for _, want := range []string{"action=rebuilt", "2 running pods", leaseFile(node) + ".damaged"} {
		if !strings.Contains(logs(t, node), want) {
			t.Errorf("no %s in the log:\n%s", want, logs(t, node))
		}
	}
	if got := metric(t, node, `weft_reconciled_total{action="rebuilt"}`); got != "1" {
		t.Errorf("%s files rebuilt", got)
	}
	if kept := read(t, leaseFile(node)+".damaged"); kept != damaged {
		t.Errorf("the damaged file was not kept as it was:\n%s", kept)
	}
	for id, l := range leasesOf(t, node) {
		if !slices.Equal(l.Addresses, before[id].Addresses) || l.Trouble != "" {
			t.Errorf("%s has %+v, want %+v", id, l, before[id])
		}
	}

	// Once more, while weftd runs and does not look.
	if err := os.Truncate(leaseFile(node), 30); err != nil {
		t.Fatal(err)
	}
	if shown := weft(t, node, "status").stdout; !strings.Contains(shown, "NOT RECONCILED: ") || !strings.Contains(shown, leaseFile(node)+": lease file is damaged") {
		t.Errorf("weft status:\n%s", shown)
	}
	if got := weftIPAM(t, node, "gc"); got.status != 0 || !strings.Contains(got.stdout, "2 running pods") {
		t.Errorf("gc: exit status %d, %s%s", got.status, got.stderr, got.stdout)
	}
	third := addPod(t, node, "third")
	expectPings(t, pod1, pod2, other, third)
	for _, pod := range []*testnet.Pod{pod1, other, third} {
		if err := node.DeletePod(t.Context(), pod.PodName); err != nil {
			t.Error(err)
		}
	}
	if left := leasesOf(t, node); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Status and metrics report the leases that only an operator can repair: if the files of two networks are
// damaged, those of the pods may be in either.
func TestUnreconciledLeasesAreReported(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	dir := filepath.Join(stateDir(node), "ipam")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	damaged := []string{filepath.Join(dir, "other.json"), filepath.Join(dir, "third.json")}
	for _, path := range damaged {
		write(t, path, "{}")
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, shown := logs(t, node), weft(t, node, "status").stdout
	if strings.Count(log, "level=ERROR msg=\"pod lease not reconciled\"") != len(damaged) {
		t.Errorf("the log does not report each once:\n%s", log)
	}
	for _, path := range damaged {
		if !strings.Contains(log, path) || !strings.Contains(shown, "NOT RECONCILED: list leases: "+path+": lease file is damaged") {
			t.Errorf("%s is not reported:\n%s\nweft status:\n%s", path, log, shown)
		}
	}
	if got := metric(t, node, "weft_leases_unreconciled"); got != "2" {
		t.Errorf("weft_leases_unreconciled is %s", got)
	}
	// A new pod could get an address of one of theirs.
	if _, err := node.AddPod(t.Context(), "pod"); err == nil || !strings.Contains(err.Error(), "lease file is damaged") {
		t.Errorf("a pod is added: %v", err)
	}
}

func TestAKillWhileLeasesArePutInOrderHarmsNothing(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1, Configure: func(weft map[string]any) {
		weft["ipam"] = map[string]any{"cooldown": "0s"}
	}}).Nodes()[0]
	alive := map[string]*testnet.Pod{"steady": addPod(t, node, "steady")}
	const left = 50
	hits := 0
	for round := range 6 {
		// One comes, one vanishes, and more is left over than can be freed until the kill.
		comes, vanishes := addPod(t, node, fmt.Sprintf("comes%d", round)), addPod(t, node, fmt.Sprintf("vanishes%d", round))
		alive[comes.PodName] = comes
		node.Kill()
		vanish(t, vanishes)
		store := leaveOver(t, node, left)
		before := countLeases(t, store)

		cmd := weftd(t, node, nil)
		if round%2 == 1 {
			cmd = node.Command(t.Context(), filepath.Join(binDir, "weft"), "ipam", "--state-dir", stateDir(node), "gc")
		}
		wait := begin(t, cmd)
		for deadline := time.Now().Add(testnet.WaitLimit); countLeases(t, store) == before; {
			if time.Now().After(deadline) {
				t.Fatal("nothing is freed")
			}
		}
		gone := make(chan error, 1)
		go func() { gone <- node.DeletePod(t.Context(), comes.PodName) }()
		delete(alive, comes.PodName)
		time.Sleep(rand.N(4 * time.Millisecond))
		_ = cmd.Process.Signal(syscall.SIGKILL)
		wait()
		if err := <-gone; err != nil {
			t.Error(err)
		}
		if n := countLeases(t, store); n > len(alive) && n < before {
			hits++
		}
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectLeasesOf(t, node, alive)
		last := addPod(t, node, fmt.Sprintf("stays%d", round))
		alive[last.PodName] = last
	}
	t.Logf("%d of 6 kills fell between the first lease that was freed and the last", hits)
	if hits == 0 {
		t.Error("no kill fell where it should")
	}
	if log := logs(t, node); strings.Contains(log, "action=rebuilt") || strings.Contains(log, "level=ERROR") {
		t.Errorf("a kill did harm:\n%s", log)
	}
	for _, pod := range alive {
		pingGateway(t, pod)
	}
	expectLeasesOf(t, node, alive)
}

// leaveOver makes n leases whose veths are gone.
func leaveOver(t *testing.T, node *testnet.Node, n int) *ipam.Store {
	t.Helper()
	store, err := ipam.Open(stateDir(node), "weft")
	if err != nil {
		t.Fatal(err)
	}
	pool := ipam.Pool{Ranges: node.Entry().PodCIDRs, Reserved: []netip.Prefix{
		netip.MustParsePrefix("10.244.1.1/32"), netip.MustParsePrefix("fd00:244:1::1/128")}}
	for i := range n {
		l := ipam.Lease{Attachment: ipam.Attachment{ContainerID: fmt.Sprintf("left%d", i), IfName: "eth0"}, Veth: fmt.Sprintf("left%d", i)}
		if _, err := store.Acquire(t.Context(), l, pool); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

func countLeases(t *testing.T, store *ipam.Store) int {
	t.Helper()
	leases, _, err := store.List()
	if err != nil {
		t.Fatal(err)
	}
	return len(leases)
}

// expectLeasesOf fails unless exactly these pods have leases, of their addresses.
func expectLeasesOf(t *testing.T, node *testnet.Node, pods map[string]*testnet.Pod) {
	t.Helper()
	leases := leasesOf(t, node)
	if len(leases) != len(pods) {
		t.Errorf("%d leases of %d pods: %v", len(leases), len(pods), leases)
	}
	for _, pod := range pods {
		if l := leases[pod.Name()]; l.Trouble != "" || !slices.Equal(l.Addresses, pod.Addrs) {
			t.Errorf("%s has %v, its lease: %+v", pod.PodName, pod.Addrs, l)
		}
	}
}
