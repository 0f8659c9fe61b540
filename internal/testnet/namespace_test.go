package testnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestExecRunsInTheNamespace(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")

	out, err := ns.Exec(t.Context(), "readlink", "/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	id, err := identify(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("net:[%d]\n", id.inode); out != want {
		t.Errorf("ran in %s, want %s", out, want)
	}
}

func TestExecReportsItsFailure(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")

	_, err := ns.Exec(t.Context(), "sh", "-c", "echo no such thing >&2; exit 3")

	if err == nil || !strings.Contains(err.Error(), "no such thing") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := ns.Command(ctx, "sh", "-c", "sleep 1000 & echo $!; wait")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}

	cancel()

	if err := cmd.Wait(); err == nil {
		t.Error("the command succeeded")
	}
	mustEnd(t, child)
}

func TestCommandDiesWithTheProcessUnlessDetached(t *testing.T) {
	for detached, want := range map[bool]syscall.Signal{false: syscall.SIGKILL, true: 0} {
		n := ForTest(t, Options{Prefix: testPrefix, Detached: detached})
		cmd := addNamespace(t, n, "a").Command(t.Context(), "true")
		if got := cmd.SysProcAttr.Pdeathsig; got != want {
			t.Errorf("detached %v: the signal at the parent's death is %v, want %v", detached, got, want)
		}
	}
}

func TestDoRunsInTheNamespace(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const current = "/proc/thread-self/ns/net"
	before, err := os.Readlink(current)
	if err != nil {
		t.Fatal(err)
	}
	var within string
	err = ns.Do(func() (err error) {
		within, err = os.Readlink(current)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Readlink(current)
	if err != nil {
		t.Fatal(err)
	}
	if within == before || after != before {
		t.Errorf("namespace before %s, within %s, after %s", before, within, after)
	}
}

func TestDoReturnsTheErrorOfTheFunction(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	want := errors.New("no route")
	if err := ns.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

func TestPanicInDoReachesTheCaller(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	defer func() {
		if value := fmt.Sprint(recover()); !strings.Contains(value, "index out of range") {
			t.Errorf("recovered %s", value)
		}
	}()
	var empty []int
	_ = ns.Do(func() error { _ = empty[len(empty)]; return nil }) //nolint:gocritic // it must panic
	t.Error("Do returned")
}

func TestGoexitInDoEndsTheCaller(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	returned := make(chan bool, 1)
	go func() {
		defer close(returned)
		_ = ns.Do(func() error { runtime.Goexit(); return nil })
		returned <- true
	}()
	if <-returned {
		t.Error("Do returned as if nothing had happened")
	}
}

func TestDialAndListenWithinNamespaces(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), WaitLimit)
	defer cancel()
	n := newTestNet(t)
	a, b := connectPair(t, n, Wire{})
	for _, addr := range []string{"10.9.0.2", "fd00:9::2"} {
		listener, err := b.Listen(ctx, "tcp", net.JoinHostPort(addr, "7000"))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		client, err := a.Dial(ctx, "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(client, "hello")
		got := make([]byte, 5)
		if _, err := io.ReadFull(server, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: got %q, %v", addr, got, err)
		}
		server.Close()
	}
}

func TestSysctlIsTheNamespacesOwn(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	for _, value := range []string{"1", "0"} {
		if err := ns.Sysctl("net.ipv4.ip_forward", value); err != nil {
			t.Fatal(err)
		}
		out, err := ns.Exec(t.Context(), "cat", "/proc/sys/net/ipv4/ip_forward")
		if err != nil || strings.TrimSpace(out) != value {
			t.Errorf("got %q, %v, want %s", out, err, value)
		}
	}
}
