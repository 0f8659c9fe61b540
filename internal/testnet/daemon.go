package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemon is one run of a program that is not meant to end.
type daemon struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // valid once ended is closed
}

// launch starts a program that appends what it writes to a file. Its life ends with the
// Net's Close, not with the context of whoever started it.
func (n *Net) launch(cmd *exec.Cmd, logFile string) (*daemon, error) {
	// Whoever closes the Net finds the process, or there is none.
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	d := &daemon{cmd: cmd, ended: make(chan struct{})}
	// Files and not pipes: the process may outlive this one.
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		d.err = d.cmd.Wait()
		if d.err == nil {
			d.err = errors.New("exit status 0")
		}
		close(d.ended)
	}()
	return d, nil
}

// whileRunning calls wait with a context that ends after limit, or with the process.
func (d *daemon) whileRunning(ctx context.Context, limit time.Duration, wait func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		select {
		case <-d.ended:
			fail(fmt.Errorf("it ended: %w", d.err))
		case <-ctx.Done():
		}
	}()
	return wait(ctx)
}

// signal reaches the program itself: nsenter, when it has entered a Machine, has it as a
// child, and ends after it.
func (d *daemon) signal(signal syscall.Signal) {
	pid := d.cmd.Process.Pid
	if command := process(pid).command(); strings.HasPrefix(command, "nsenter ") {
		children, _ := os.ReadFile(process(pid).file(fmt.Sprintf("task/%d/children", pid)))
		if child, err := strconv.Atoi(strings.TrimSpace(string(children))); err == nil {
			_ = syscall.Kill(child, signal)
			return
		}
	}
	_ = d.cmd.Process.Signal(signal) // it may have ended
}
