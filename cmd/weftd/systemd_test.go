package main_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// supervisor is a stand-in for systemd: it starts weftd as a service with a file descriptor store,
// and speaks sd_notify(3) with it.
type supervisor struct {
	node   *testnet.Node
	socket *net.UnixConn
	path   string
	cmd    *exec.Cmd
	ended  chan error

	mu       sync.Mutex
	store    []*os.File
	messages []string
}

func supervise(t *testing.T, node *testnet.Node) *supervisor {
	t.Helper()
	s := &supervisor{node: node, path: filepath.Join(node.Dir(), "notify")}
	var err error
	if s.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	go s.receive()
	t.Cleanup(func() {
		s.socket.Close()
		s.forget("")
	})
	s.start(t)
	return s
}

// start starts weftd with what is stored, and returns when it forwards.
func (s *supervisor) start(t *testing.T, args ...string) {
	t.Helper()
	s.mu.Lock()
	var names []string
	for _, f := range s.store {
		names = append(names, f.Name())
	}
	// systemd says whom the descriptors are for, and only the shell knows that before.
	s.cmd = weftd(t, s.node, []string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, args...)
	s.cmd.Env = append(s.cmd.Env, "NOTIFY_SOCKET="+s.path, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	s.cmd.ExtraFiles = s.store
	log, err := os.OpenFile(s.node.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	err = s.cmd.Start()
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	s.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(s.cmd, s.ended)
	if err := s.node.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// stop ends weftd, and returns when it has ended.
func (s *supervisor) stop(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-s.ended:
		if err != nil && signal != syscall.SIGKILL {
			t.Fatalf("weftd ends with %v\n%s", err, s.node.LogTail(20))
		}
	case <-time.After(testnet.WaitLimit):
		t.Fatalf("weftd does not end\n%s", s.node.LogTail(20))
	}
}

func (s *supervisor) receive() {
	message, control := make([]byte, 4096), make([]byte, 4096)
	for {
		n, controlLen, _, _, err := s.socket.ReadMsgUnix(message, control)
		if err != nil {
			return
		}
		text := string(message[:n])
		_, name, _ := strings.Cut(text, "FDNAME=")
		switch {
		case strings.HasPrefix(text, "FDSTORE=1\n"):
			s.keep(control[:controlLen], name)
		case strings.HasPrefix(text, "FDSTOREREMOVE=1\n"):
			s.forget(name)
		default:
			s.keep(control[:controlLen], "")
			s.mu.Lock()
			s.messages = append(s.messages, text)
			s.mu.Unlock()
		}
	}
}

// keep stores the descriptors of a message, or closes them if they have no name.
func (s *supervisor) keep(control []byte, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages, _ := syscall.ParseSocketControlMessage(control)
	for i := range messages {
		fds, _ := syscall.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			if name == "" {
				_ = unix.Close(fd)
			} else {
				s.store = append(s.store, os.NewFile(uintptr(fd), name))
			}
		}
	}
}

// forget closes what is stored under a name, or all.
func (s *supervisor) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []*os.File
	for _, f := range s.store {
		if name == "" || f.Name() == name {
			f.Close()
		} else {
			kept = append(kept, f)
		}
	}
	s.store = kept
}

func (s *supervisor) stored() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.store)
}

// got returns what weftd has said, without the messages about descriptors.
func (s *supervisor) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.messages, "\n")
}

// TestRestartBySystemdLosesNothing: weftd leaves its data path with systemd, and its next start goes
// on with it.
func TestRestartBySystemdLosesNothing(t *testing.T) {
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node := cluster.Nodes()[0]
	if err := cluster.Nodes()[1].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := supervise(t, node)
	pod1, pod2 := addPod(t, node, "a"), addPod(t, cluster.Nodes()[1], "b")
	before := ours(t, node.Namespace)
	tr := startTraffic(t, pod1, pod2)
	n := 0
	for ; tr.passes() || n < 2; n++ {
		s.stop(t, syscall.SIGTERM)
		if stored := s.stored(); stored != 7 { // memory, and 3 of each of 2 lanes
			t.Fatalf("systemd has %d descriptors\n%s", stored, node.LogTail(20))
		}
		s.start(t)
		if stored := s.stored(); stored != 0 {
			t.Fatalf("systemd still has %d descriptors\n%s", stored, node.LogTail(20))
		}
	}
	t.Logf("%d restarts", n)
	tr.expectNoLoss(t)
	expectSame(t, "what weftd owns", before, ours(t, node.Namespace))
	if taken := strings.Count(logs(t, node), "keys taken over"); taken != n {
		t.Errorf("keys were taken over %d times in %d restarts", taken, n)
	}

	// A stop for good: systemd closes what it has, and the device goes.
	s.stop(t, syscall.SIGTERM)
	s.forget("")
	eventually(t, "the device to go", func() error {
		if links := run(t, node.Namespace, "ip", "-br", "link"); strings.Contains(links, testnet.TUNName) {
			return errors.New(links)
		}
		return nil
	})
	s.start(t)
	expectPings(t, pod1, pod2)
	s.stop(t, syscall.SIGKILL) // leaves nothing with systemd
	s.start(t)
	expectPings(t, pod1, pod2)
	s.stop(t, syscall.SIGTERM)
}

// TestTakeoverOfAService: systemd learns which process is the service now, and that one reports to
// it. weftd starts the next one itself, or an operator does.
func TestTakeoverOfAService(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node := cluster.Nodes()[0]
	if err := cluster.Nodes()[1].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := supervise(t, node)
	pod1, pod2 := addPod(t, node, "a"), addPod(t, cluster.Nodes()[1], "b")
	s.stop(t, syscall.SIGUSR2)
	first := s.newMain(t, 0)
	expectPings(t, pod1, pod2)

	next := weftd(t, node, nil, "--takeover")
	wait := begin(t, next)
	if second := s.newMain(t, first); second != next.Process.Pid {
		t.Errorf("systemd takes process %d for the service, not %d", second, next.Process.Pid)
	}
	expectPings(t, pod1, pod2)
	if strings.Contains(s.got(), "STOPPING=1") {
		t.Errorf("systemd takes the service for stopping:\n%s", s.got())
	}
	if err := next.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := wait(); got.status != 0 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
	if stored := s.stored(); stored != 7 {
		t.Errorf("it has stored %d descriptors", stored)
	}
}

// newMain waits until weftd has named a main process other than before, and that one forwards.
func (s *supervisor) newMain(t *testing.T, before int) (pid int) {
	t.Helper()
	eventually(t, "a new main process that forwards", func() error {
		_, text, found := cutLast(s.got(), "MAINPID=")
		number, after, _ := strings.Cut(text, "\n")
		pid, _ = strconv.Atoi(number)
		if !found || pid == before || !strings.Contains(after, "STATUS=forwarding") {
			return errors.New(s.got())
		}
		return nil
	})
	return pid
}
