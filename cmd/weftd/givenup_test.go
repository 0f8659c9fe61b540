package main_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/status"
	"weft/internal/testnet"
)

// stuck is a next weftd that has received the data path and stands still before it claims it: its
// first log message waits for room in a pipe.
type stuck struct {
	cmd *exec.Cmd
	log *os.File
}

// startStuck returns when the lanes of the node's weftd stand still, with the ticket of the hand-over.
func startStuck(t *testing.T, node *testnet.Node) (next *stuck, ticket string) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	next = &stuck{cmd: weftd(t, node, nil, "--takeover"), log: os.NewFile(uintptr(fds[0]), "log")}
	in := os.NewFile(uintptr(fds[1]), "log")
	defer in.Close()
	t.Cleanup(func() { next.log.Close() })
	for {
		if _, err := unix.Write(fds[1], []byte(strings.Repeat("\n", 4096))); errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.SetNonblock(fds[1], false); err != nil {
		t.Fatal(err)
	}
	next.cmd.Stderr = in
	if err := next.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hand-over begins", func() error {
		tickets, err := filepath.Glob(filepath.Join(node.RunDir(), "handover-*"))
		if len(tickets) == 0 {
			return errors.Join(errors.New("no ticket"), err)
		}
		ticket = tickets[0]
		return nil
	})
	return next, ticket
}

// kill ends it where it stands.
func (s *stuck) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// goOn has it go on, and returns how it ends.
func (s *stuck) goOn(t *testing.T) outcome {
	t.Helper()
	logged := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(s.log)
		logged <- string(all)
	}()
	late := time.AfterFunc(testnet.WaitLimit, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	_ = s.cmd.Wait()
	return outcome{status: s.cmd.ProcessState.ExitCode(), stderr: strings.TrimSpace(<-logged)}
}

// TestTakeoverThatIsTooSlow: the weftd that goes on keeps its status socket, and its lock names it.
func TestTakeoverThatIsTooSlow(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	lock := filepath.Join(node.RunDir(), "weftd.lock")
	holder := read(t, lock)
	next, _ := startStuck(t, node)
	eventuallyLogs(t, node, 1, "not taken over, forwarding goes on")
	if got := next.goOn(t); got.status != 1 || !strings.Contains(got.stderr, "take over from the running weftd: what was handed over was claimed already") {
		t.Errorf("the slow one: exit status %d: %s", got.status, got.stderr)
	}
	expectPings(t, pod1, pod2)
	if got := weft(t, node, "status"); got.status != 0 || !strings.Contains(got.stdout, "ready") {
		t.Errorf("weft status: %s%s", got.stdout, got.stderr)
	}
	if got := read(t, lock); got != holder {
		t.Errorf("the lock names process %q, and %q holds it", got, holder)
	}
	if err := node.TakeOver(t.Context(), "--takeover"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, lock); got == holder {
		t.Errorf("after a hand-over the lock names process %q, which has ended", got)
	}
}

// TestTakeoverThatIsUnclear: a weftd that can't find out whether the next one has the keys ends, and
// leaves the device to it as it is.
func TestTakeoverThatIsUnclear(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	next, ticket := startStuck(t, node)
	// What can't be removed stands in the ticket's place, as on a file system that fails for a while.
	if err := errors.Join(os.Remove(ticket), os.MkdirAll(filepath.Join(ticket, "full"), 0o700)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the weftd before ends", func() error {
		if node.Crashed() == nil {
			return errors.New("it runs")
		}
		return nil
	})
	if got := logs(t, node); !strings.Contains(got, "it is not known which weftd goes on") {
		t.Errorf("it does not say why it ended:\n%s", got)
	}
	if got := run(t, node.Namespace, "ip", "-details", "link", "show", testnet.TUNName); !strings.Contains(got, "persist on") {
		t.Errorf("the device goes with the next one, if that dies:\n%s", got)
	}
	if err := errors.Join(os.RemoveAll(ticket), os.WriteFile(ticket, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan outcome, 1)
	go func() { ended <- next.goOn(t) }()
	eventually(t, "the next one forwards", func() error { return pings(t, pod1.Namespace, addrOf(t, pod2, false)) })
	_ = next.cmd.Process.Signal(unix.SIGTERM)
	if got := <-ended; got.status != 0 || !strings.Contains(got.stderr, "data path taken over") {
		t.Errorf("the next one: exit status %d: %s", got.status, got.stderr)
	}
	node.Kill() // it has ended
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPings(t, pod1, pod2)
}

// TestTakeoverFromElsewhere: a weftd in another network namespace takes nothing, and the one that
// runs goes on.
func TestTakeoverFromElsewhere(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node, elsewhere := cluster.Nodes()[0], cluster.Nodes()[1]
	got := finish(t, elsewhere.Command(t.Context(), filepath.Join(binDir, "weftd"), "--config", configFile(node), "--takeover"))
	if want := fmt.Sprintf("another network namespace; start this one there, for example with nsenter --net --target=%d", node.PID()); got.status != 1 || !strings.Contains(got.stderr, want) {
		t.Errorf("exit status %d: %s; want %q", got.status, got.stderr, want)
	}
	if err := node.Crashed(); err != nil {
		t.Fatal(err)
	}
	expectPings(t, pod1, pod2)
	if err := node.TakeOver(t.Context(), "--takeover"); err != nil {
		t.Error(err)
	}
}

// TestTakeoverThatIsGivenUp: what operators have asked for ends with an error, and the MTU of paths is
// kept, also by the weftd after the next hand-over.
func TestTakeoverThatIsGivenUp(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Wire: testnet.Wire{Offloads: testnet.Bare}})
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	pod1, pod2 := addPod(t, node, "a"), addPod(t, other, "b")
	run(t, other.Namespace, "ethtool", "-K", testnet.UnderlayLink, "gro", "off")
	expectPings(t, pod1, pod2)
	const limit, mtu = 1300, 1240
	blackHole(t, other, limit)
	probe(t, node)
	path := func() *status.Path { return report(t, node).Peers[0].Path }
	if got := path().MTU; got != mtu {
		t.Fatalf("the path has MTU %d, and %d fits", got, mtu)
	}

	asked := make(chan error, 2)
	captures := make(chan struct{})
	go func() {
		asked <- status.CapturePackets(t.Context(), node.Socket(), status.CaptureFilter{SnapLen: 64}, func() { close(captures) }, func(status.CapturedPacket) error { return nil })
	}()
	<-captures
	before := path().Answered
	go func() {
		_, err := status.AskProbe(t.Context(), node.Socket(), other.Entry().Name, status.MaxProbeRounds)
		asked <- err
	}()
	eventually(t, "the probe to begin", func() error {
		if path().Answered.Equal(before) {
			select {
			case err := <-asked:
				t.Fatalf("it has ended: %v", err)
			default:
			}
			return errors.New("no probe was answered yet")
		}
		return nil
	})
	next, _ := startStuck(t, node)
	next.kill()
	eventuallyLogs(t, node, 1, "not taken over, forwarding goes on")
	for range 2 {
		if err := <-asked; err == nil || !strings.Contains(err.Error(), "another weftd was to take over") {
			t.Errorf("a capture or a probe ends with %v", err)
		}
	}
	if err := node.TakeOver(t.Context(), "--takeover"); err != nil {
		t.Fatal(err)
	}
	if got := path().MTU; got != mtu {
		t.Errorf("after the hand-over the path has MTU %d, and %d fits", got, mtu)
	}
}
