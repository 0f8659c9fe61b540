package testnet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// tailLines of a log is what an error quotes.
const tailLines = 15

// daemon is one run of weftd, or of another program that is not meant to end.
type daemon struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // valid once ended is closed
}

// Start writes weft.yaml, starts weftd and returns when it is ready.
func (n *Node) Start(ctx context.Context) error {
	if err := n.start(ctx); err != nil {
		return fmt.Errorf("start weftd on %s: %w", n.options.Name, err)
	}
	return nil
}

func (n *Node) start(ctx context.Context) error {
	d, err := n.launch()
	if err != nil {
		return err
	}
	if err := d.whileRunning(ctx, WaitLimit, n.WaitReady); err != nil {
		return fmt.Errorf("%w\n%s", err, n.LogTail(tailLines))
	}
	return nil
}

// launch starts the process. Its life ends by Stop, Kill or the Net's Close, not
// with the context of whoever started it.
func (n *Node) launch() (*daemon, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.daemon != nil {
		return nil, errors.New("it runs already")
	}
	if err := n.writeConfig(); err != nil {
		return nil, err
	}
	d, err := n.launchDaemon(n.logFile(), n.program("weftd"), "--config", n.configFile())
	if err != nil {
		return nil, err
	}
	n.daemon = d
	return d, nil
}

// launchDaemon starts a program that appends what it writes to a file.
func (n *Namespace) launchDaemon(logFile, program string, args ...string) (*daemon, error) {
	return n.net.launch(n.Command(context.Background(), program, args...), logFile)
}

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

// WaitReady returns when weftd says that it is ready.
func (n *Node) WaitReady(ctx context.Context) error {
	return Wait(ctx, n.options.Name+" to be ready", func(ctx context.Context) error {
		_, err := n.Get(ctx, "/readyz")
		return err
	})
}

// Get fetches a path from the node's metrics listener. Any status but 200 is an
// error that quotes the answer.
func (n *Node) Get(ctx context.Context, path string) (string, error) {
	return n.get(ctx, "http://"+metricsAddress, path)
}

// get fetches a path from a server that the namespace reaches.
func (n *Namespace) get(ctx context.Context, server, path string) (string, error) {
	return n.getTLS(ctx, nil, server, path)
}

// getTLS is get from a server whose certificate one of the roots has signed.
func (n *Namespace) getTLS(ctx context.Context, roots *x509.CertPool, server, path string) (string, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return n.Dial(ctx, network, address)
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server+path, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", path, response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// PID is the process id of the running weftd, 0 if there is none.
func (n *Node) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.daemon == nil {
		return 0
	}
	return n.daemon.cmd.Process.Pid
}

// Crashed returns why weftd has ended though nobody stopped it, or nil.
func (n *Node) Crashed() error {
	n.mu.Lock()
	d := n.daemon
	n.mu.Unlock()
	if d == nil {
		return nil
	}
	select {
	case <-d.ended:
		return fmt.Errorf("weftd on %s has ended by itself: %w", n.options.Name, d.err)
	default:
		return nil
	}
}

// Stop asks weftd to end and waits until it has. A weftd that does not end within
// WaitLimit, or not with status 0, is an error; in any case it runs no longer.
func (n *Node) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, WaitLimit)
	defer cancel()
	d := n.release()
	if d == nil {
		return nil
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-ctx.Done():
		d.kill()
		return fmt.Errorf("stop weftd on %s: killed, because it did not end: %w", n.options.Name, ctx.Err())
	}
	if !d.cmd.ProcessState.Success() {
		return fmt.Errorf("stop weftd on %s: %w\n%s", n.options.Name, d.err, n.LogTail(tailLines))
	}
	return nil
}

// Kill ends weftd as a crash would, and returns when it is gone.
func (n *Node) Kill() {
	if d := n.release(); d != nil {
		d.kill()
	}
}

// Restart is Stop and Start.
func (n *Node) Restart(ctx context.Context) error {
	if err := n.Stop(ctx); err != nil {
		return err
	}
	return n.Start(ctx)
}

func (n *Node) release() *daemon {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.daemon
	n.daemon = nil
	return d
}

func (d *daemon) kill() {
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	<-d.ended
}

// Logs returns what weftd has written so far, over all its runs.
func (n *Node) Logs() (string, error) {
	log, err := os.ReadFile(n.logFile())
	if err != nil {
		return "", fmt.Errorf("read the log of %s: %w", n.options.Name, err)
	}
	return string(log), nil
}

// LogTail returns the last lines of the log, under a heading, for an error message.
func (n *Node) LogTail(lines int) string {
	log, err := n.Logs()
	if err != nil {
		return err.Error()
	}
	return logTail(n.options.Name, log, lines)
}

func logTail(name, log string, lines int) string {
	all := strings.Split(strings.TrimRight(log, "\n"), "\n")
	tail := all[max(0, len(all)-lines):]
	return fmt.Sprintf("--- the end of %s's log\n%s\n---", name, strings.Join(tail, "\n"))
}
