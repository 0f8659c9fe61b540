package measure

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

	"weft/benchmarks/system"
)

// process is a program that runs in a pod until it is told to end.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr *bytes.Buffer
	cancel context.CancelFunc
}

// start starts a program and returns when it has written a line that contains ready.
func start(ctx context.Context, in system.Pod, ready, program string, args ...string) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{cmd: in.Command(ctx, program, args...), stderr: new(bytes.Buffer), cancel: cancel}
	err := p.start(ready)
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("start %s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(p.stderr.String()))
	}
	return p, nil
}

func (p *process) start(ready string) error {
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

// kill ends the process. Afterwards nothing of it is left.
func (p *process) kill() {
	p.cancel()
	if p.cmd.Process != nil {
		_ = p.cmd.Wait() // it was just killed
	}
}

// finish closes the process's standard input and decodes what it then reports.
func (p *process) finish(report any) error {
	defer p.cancel()
	decodeErr := errors.Join(p.stdin.Close(), json.NewDecoder(p.stdout).Decode(report))
	if err := errors.Join(p.cmd.Wait(), decodeErr); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(p.cmd.Args, " "), err, strings.TrimSpace(p.stderr.String()))
	}
	return nil
}

// runJSON runs a program in a pod and decodes what it reports.
func runJSON(ctx context.Context, in system.Pod, report any, program string, args ...string) error {
	out, err := in.Exec(ctx, program, args...)
	// iperf3 reports its own errors in JSON, and ends with status 1.
	if decodeErr := json.Unmarshal([]byte(out), report); decodeErr != nil {
		return errors.Join(err, fmt.Errorf("read the report of %s: %w", program, decodeErr))
	}
	return err
}
