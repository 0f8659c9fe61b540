package testnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Process is a program that runs until it is killed, or its standard input ends.
type Process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr *bytes.Buffer
	cancel context.CancelFunc
}

// StartReady starts a program and returns when it has written a line that contains ready.
// It ends with ctx.
func (n *Namespace) StartReady(ctx context.Context, ready, program string, args ...string) (*Process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &Process{cmd: n.Command(ctx, program, args...), stderr: new(bytes.Buffer), cancel: cancel}
	err := p.start(ready)
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("start %s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(p.stderr.String()))
	}
	return p, nil
}

func (p *Process) start(ready string) error {
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.stdin, p.stdout, p.cmd.Stderr = stdin, bufio.NewReader(stdout), p.stderr
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for {
		line, err := p.stdout.ReadString('\n')
		if strings.Contains(line, ready) {
			return nil
		}
		if err != nil {
			return errors.New("it ended before it was ready")
		}
	}
}

// Kill ends the process. Afterwards nothing of it is left.
func (p *Process) Kill() {
	p.cancel()
	if p.cmd.Process != nil {
		_ = p.cmd.Wait() // it was just killed
	}
}

// Finish closes the process's standard input and decodes what it then reports.
func (p *Process) Finish(report any) error {
	defer p.cancel()
	decodeErr := errors.Join(p.stdin.Close(), json.NewDecoder(p.stdout).Decode(report))
	if err := errors.Join(p.cmd.Wait(), decodeErr); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(p.cmd.Args, " "), err, strings.TrimSpace(p.stderr.String()))
	}
	return nil
}

// RunJSON runs a program in the namespace and decodes what it reports.
func (n *Namespace) RunJSON(ctx context.Context, report any, program string, args ...string) error {
	out, err := n.Exec(ctx, program, args...)
	// iperf3 reports its own errors in JSON, and ends with status 1.
	if decodeErr := json.Unmarshal([]byte(out), report); decodeErr != nil {
		return errors.Join(err, fmt.Errorf("read the report of %s: %w", program, decodeErr))
	}
	return err
}
