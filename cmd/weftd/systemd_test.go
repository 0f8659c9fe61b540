package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// service is a node whose weftd is a service of a real systemd, by the project's own unit.
type service struct {
	node    *testnet.Node
	systemd string // its process
}

// startSystemd starts systemd on a node, with weftd as a service. See testdata/systemd.
func startSystemd(t *testing.T, node *testnet.Node) *service {
	t.Helper()
	units := t.TempDir()
	for name, text := range map[string]string{
		"weftd.service": read(t, "../../deploy/systemd/weftd.service"),
		// The folders of a node under test are not those of a host.
		"weftd.service.d/test.conf": fmt.Sprintf("[Service]\nBindPaths=%s\nBindReadOnlyPaths=%s\nStandardOutput=append:%s\nStandardError=inherit\n"+
			"ExecStart=\nExecStart=%s --config %s\n", node.Dir(), binDir, node.LogFile(), filepath.Join(binDir, "weftd"), configFile(node)),
		"sysinit.target": "[Unit]\n", "basic.target": "[Unit]\n", "shutdown.target": "[Unit]\n", // empty ones were masked
	} {
		path := filepath.Join(units, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s := startSystemdIn(t, node, "run", units)
	eventually(t, "systemd to run weftd", func() error {
		if out, err := s.control("is-active", "weftd"); err != nil {
			return errors.New(out)
		}
		return nil
	})
	return s
}

// startSystemdIn has testdata/systemd run systemd on a node.
func startSystemdIn(t *testing.T, node *testnet.Node, how, folder string) *service {
	t.Helper()
	cgroup := fmt.Sprintf("weft-test-%d-%s", os.Getpid(), node.Name())
	container := node.Command(context.Background(), "testdata/systemd", how, cgroup, folder, node.Dir())
	s := &service{node: node}
	complaints := new(bytes.Buffer)
	container.Stdout, container.Stderr = complaints, complaints
	if err := container.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		status, _ := s.control("status", "weftd")
		_ = container.Cancel()
		_ = container.Wait()
		if t.Failed() {
			t.Logf("systemd says:\n%s\n%s", complaints, status)
		}
		if err := testnet.Wait(context.Background(), "the cgroup to be removed", func(context.Context) error {
			if out, err := exec.Command("testdata/systemd", "remove", cgroup).CombinedOutput(); err != nil {
				return errors.New(string(out))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "systemd to start", func() error {
		s.systemd = strings.TrimSpace(run(t, node.Namespace, "sh", "-c", fmt.Sprintf("pgrep --parent %d || true", container.Process.Pid)))
		// Before, it is a script that has not left the machine's own folders yet.
		if exe, err := os.Readlink(filepath.Join("/proc", s.systemd, "exe")); err != nil || filepath.Base(exe) != "systemd" {
			return fmt.Errorf("process %q is %q (%w)", s.systemd, exe, err)
		}
		out, err := s.control("show", "--property=Version")
		if err != nil {
			return errors.New(out)
		}
		return nil
	})
	return s
}

// inside runs a command beside systemd.
func (s *service) inside(args ...string) (string, error) {
	out, err := exec.Command("nsenter", append([]string{"--target", s.systemd, "--all", "--"}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// control is systemctl.
func (s *service) control(args ...string) (string, error) {
	return s.inside(append([]string{"systemctl"}, args...)...)
}

// systemctl returns what it says when it has succeeded.
func (s *service) systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.control(args...)
	if err != nil {
		t.Fatalf("systemctl %s: %v: %s\n%s", strings.Join(args, " "), err, out, s.node.LogTail(20))
	}
	return out
}

func (s *service) property(t *testing.T, name string) string {
	t.Helper()
	return s.systemctl(t, "show", "--property", name, "--value", "weftd")
}

// newMain waits until the service has another main process than before, and that one forwards.
func (s *service) newMain(t *testing.T, before string) (pid string) {
	t.Helper()
	eventually(t, "a new main process that forwards", func() error {
		pid = s.property(t, "MainPID")
		if text := s.property(t, "StatusText"); pid == before || pid == "0" || !strings.HasPrefix(text, "forwarding") {
			return fmt.Errorf("process %s says %q", pid, text)
		}
		return nil
	})
	if state := s.property(t, "ActiveState"); state != "active" {
		t.Errorf("the service is %s", state)
	}
	return pid
}

// serviceAndPods is a cluster of two nodes, the first one's weftd a service, with a pod on each. The commands
// prepare the first one.
func serviceAndPods(t *testing.T, o testnet.ClusterOptions, prepare ...string) (s *service, pod1, pod2 *testnet.Pod) {
	t.Helper()
	o.Nodes, o.Sealed = 2, true
	cluster := newCluster(t, o)
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	if err := node1.ExecAll(t.Context(), prepare...); err != nil {
		t.Fatal(err)
	}
	if err := node2.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = startSystemd(t, node1)
	return s, addPod(t, node1, "a"), addPod(t, node2, "b")
}

// TestRestartBySystemdLosesNothing: weftd leaves its data path with systemd, and its next start goes
// on with it.
func TestRestartBySystemdLosesNothing(t *testing.T) {
	s, pod1, pod2 := serviceAndPods(t, testnet.ClusterOptions{})
	before := ours(t, s.node.Namespace)
	tr := startTraffic(t, pod1, pod2)
	n, main := 0, s.newMain(t, "")
	for ; tr.passes() || n < 2; n++ {
		s.systemctl(t, "restart", "weftd")
		main = s.newMain(t, main)
		if stored := s.property(t, "NFileDescriptorStore"); stored != "0" {
			t.Fatalf("systemd still has %s descriptors\n%s", stored, s.node.LogTail(20))
		}
	}
	t.Logf("%d restarts", n)
	tr.expectNoLoss(t)
	expectCountersGoOn(t, s.node)
	expectSame(t, "what weftd owns", before, ours(t, s.node.Namespace))
	if taken := strings.Count(logs(t, s.node), "keys taken over"); taken != n {
		t.Errorf("keys were taken over %d times in %d restarts", taken, n)
	}

	// A stop for good: systemd closes what it has, and the device goes.
	s.systemctl(t, "stop", "weftd")
	eventually(t, "the device to go", func() error {
		if links := run(t, s.node.Namespace, "ip", "-br", "link"); strings.Contains(links, testnet.TUNName) {
			return errors.New(links)
		}
		return nil
	})
	if guard := run(t, s.node.Namespace, "nft", "list", "table", "inet", "weft"); !strings.Contains(guard, "drop") {
		t.Errorf("the guard is not closed:\n%s", guard)
	}
	s.systemctl(t, "start", "weftd")
	expectPings(t, pod1, pod2)
}

// TestCrashIsRepairedBySystemd: a killed weftd is started again, with keys of its own.
func TestCrashIsRepairedBySystemd(t *testing.T) {
	t.Parallel()
	s, pod1, pod2 := serviceAndPods(t, testnet.ClusterOptions{})
	expectPings(t, pod1, pod2)
	first := s.newMain(t, "")
	s.systemctl(t, "kill", "--signal=KILL", "weftd")
	s.newMain(t, first)
	expectPings(t, pod1, pod2)
	if strings.Contains(logs(t, s.node), "keys taken over") {
		t.Error("keys of the weftd that was killed are used")
	}

	// What a restart doesn't repair is not tried again, and says so.
	if err := os.WriteFile(configFile(s.node), []byte("nodeName: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.control("restart", "weftd"); err == nil {
		t.Errorf("weftd starts: %s", out)
	}
	if state, status := s.property(t, "ActiveState"), s.property(t, "ExecMainStatus"); state != "failed" || status != strconv.Itoa(2) {
		t.Errorf("the service is %s, exit status %s", state, status)
	}
}

// TestTheServiceIsConfined looks at the host as weftd sees it there. It still runs iptables.
func TestTheServiceIsConfined(t *testing.T) {
	t.Parallel()
	s, pod1, pod2 := serviceAndPods(t, testnet.ClusterOptions{Configure: func(weft map[string]any) {
		weft["host"] = map[string]any{"acceptForward": true}
	}}, "iptables-nft -P FORWARD DROP", "iptables-legacy -P FORWARD DROP", "ip6tables-nft -P FORWARD DROP", "ip6tables-legacy -P FORWARD DROP")
	main := s.newMain(t, "")
	expectPings(t, pod1, pod2)
	for _, tt := range []struct{ name, command, want string }{
		{"sockets of /run", "cd /run; echo *; cd systemd; echo *", "systemd weft weft-testnet xtables.lock\nincoming notify"},
		{"what root reads", "stat -c %s /etc/shadow; ls -A /root 2>/dev/null; true", "0"},
		{"devices", "ls /dev/net /dev/kmsg /dev/vda /dev/sda 2>/dev/null; true", "/dev/net:\ntun"},
		{"the kernel's settings", "test -w /proc/sys/net/ipv4/ip_forward && ! touch /proc/sys/kernel/core_pattern 2>/dev/null && echo network", "network"},
		{"programs", "touch /usr/bin/weftd 2>/dev/null || echo read-only", "read-only"},
	} {
		got, err := s.inside("nsenter", "--target", main, "--mount", "--", "setpriv", "--bounding-set=-all,+net_admin", "sh", "-c", tt.command)
		if err != nil || got != tt.want {
			t.Errorf("%s: %v: %q, not %q", tt.name, err, got, tt.want)
		}
	}
}

// TestTakeoverOfAServiceLosesNothing: systemd learns which process is the service now.
func TestTakeoverOfAServiceLosesNothing(t *testing.T) {
	s, pod1, pod2 := serviceAndPods(t, testnet.ClusterOptions{})
	tr := startTraffic(t, pod1, pod2)
	n, main := 0, s.newMain(t, "")
	for ; tr.passes() || n < 2; n++ {
		s.systemctl(t, "kill", "--kill-who=main", "--signal=USR2", "weftd")
		main = s.newMain(t, main)
	}
	t.Logf("%d hand-overs", n)
	tr.expectNoLoss(t)

	// What an operator starts is not in the service's control group, and systemd not its parent.
	manual, err := s.inside(filepath.Join(binDir, "weftd"), "--config", configFile(s.node), "--takeover")
	if err == nil || !strings.Contains(manual, "systemctl kill --kill-who=main --signal=USR2 weftd") {
		t.Errorf("%v: %s", err, manual)
	}
	if now := s.property(t, "MainPID"); now != main {
		t.Errorf("process %s is the service, not %s", now, main)
	}
	if restarts := s.property(t, "NRestarts"); restarts != "0" {
		t.Errorf("systemd itself has restarted it %s times", restarts)
	}

	// systemd awaits its end, as that of each main process.
	s.systemctl(t, "restart", "weftd")
	s.newMain(t, main)
	if taken := strings.Count(logs(t, s.node), "keys taken over"); taken != n+1 {
		t.Errorf("keys were taken over %d times, not %d\n%s", taken, n+1, s.node.LogTail(30))
	}
	expectPings(t, pod1, pod2)
}
