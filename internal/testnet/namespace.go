package testnet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
)

// Namespace is a named network namespace: `ip netns exec Name() …` enters it.
type Namespace struct {
	name string
	net  *Net
}

func newNamespace(ctx context.Context, name string, net *Net) (*Namespace, error) {
	// iproute2 and not a system call of our own, because it also makes /run/netns a
	// shared mount when this is the machine's first namespace.
	if out, err := exec.CommandContext(ctx, "ip", "netns", "add", name).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	n := &Namespace{name: name, net: net}
	if err := n.Do(raiseLoopback); err != nil {
		return nil, errors.Join(err, reap(context.WithoutCancel(ctx), []string{name}, noProcess))
	}
	return n, nil
}

// Name is the namespace's name under /run/netns.
func (n *Namespace) Name() string { return n.name }

// Path is the namespace's file.
func (n *Namespace) Path() string { return filepath.Join(netnsDir, n.name) }

// Exec runs a program in the namespace and returns its standard output. The error
// carries what it wrote to standard error.
func (n *Namespace) Exec(ctx context.Context, name string, args ...string) (string, error) {
	cmd := n.program(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The child is born in the namespace. To start nsenter first costs more than many a program.
	if err := n.Do(cmd.Run); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return stdout.String(), fmt.Errorf("in %s: %s: %w: %s", n.name,
			strings.Join(append([]string{name}, args...), " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ExecAll runs command lines, whose words have no spaces, one after the other until one fails.
func (n *Namespace) ExecAll(ctx context.Context, commands ...string) error {
	for _, command := range commands {
		words := strings.Fields(command)
		if _, err := n.Exec(ctx, words[0], words[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// Command prepares a program to run in the namespace, in a process group of its
// own that is killed when ctx ends. Unless the Net is detached, the kernel kills
// the process when the thread that started it ends: start it from an ordinary
// goroutine, not from one that is locked to a thread it will not give back.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return n.program(ctx, "nsenter", append([]string{"--net=" + n.Path(), "--", name}, args...)...)
}

// program is Command for a program that is started in the namespace.
func (n *Namespace) program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !n.net.options.Detached {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.Env = append(os.Environ(), n.net.claim.marker())
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// Do runs f on a thread that is in the namespace; sockets that f opens stay there.
// Goroutines that f starts are not in the namespace. The thread is thrown away if
// it can't be brought back. A panic in f, and a Goexit like that of t.Fatal, reach
// the caller as if f had been called directly.
func (n *Namespace) Do(f func() error) error {
	var returned bool
	var panicked any
	err := ns.WithNetNSPath(n.Path(), func(ns.NetNS) error {
		defer func() {
			if value := recover(); value != nil {
				panicked = fmt.Sprintf("%v\n\nin namespace %s:\n%s", value, n.name, debug.Stack())
			}
		}()
		err := f()
		returned = true
		return err
	})
	switch {
	case panicked != nil:
		panic(panicked)
	case err == nil && !returned:
		runtime.Goexit()
	}
	return err
}

// Dial connects from within the namespace. The address must be an IP literal with
// a port: looking names up would leave the namespace.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", n.name, err)
	}
	return conn, nil
}

// Listen listens in the namespace, for network tcp, tcp4 or tcp6. An address may be in use for
// a moment after its listener was closed: between fork and exec, a child has all sockets of
// this process. So Listen waits until it is free.
func (n *Namespace) Listen(ctx context.Context, network, address string) (listener net.Listener, err error) {
	waited := Wait(ctx, address+" to be free", func(ctx context.Context) error {
		err = n.Do(func() (err error) {
			listener, err = (&net.ListenConfig{}).Listen(ctx, network, address)
			return err
		})
		if errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		return nil
	})
	if err = cmp.Or(waited, err); err != nil {
		return nil, fmt.Errorf("in %s: %w", n.name, err)
	}
	return listener, nil
}

// Sysctl sets a kernel parameter of the namespace, for example net.ipv4.ip_forward.
func (n *Namespace) Sysctl(key, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	err := n.Do(func() error { return os.WriteFile(path, []byte(value), 0o644) })
	if err != nil {
		return fmt.Errorf("in %s: set %s to %s: %w", n.name, key, value, err)
	}
	return nil
}
