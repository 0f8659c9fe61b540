package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Service is a program that runs until it is stopped, and can be started again. Its
// methods may be called concurrently.
type Service struct {
	title   string
	logFile string
	owner   *Net

	// command prepares a run.
	command func() (*exec.Cmd, error)

	// mustSucceed has Stop return an error unless the program ends with status 0.
	mustSucceed bool

	// ready is called again and again until it returns nil.
	ready func(context.Context) error

	mu     sync.Mutex
	daemon *daemon // nil when it was not started, or was stopped
}

// AddService is a program that is to run in the node's network namespace, and starts it not yet.
func (n *Node) AddService(name string, ready func(context.Context) error, program string, arguments ...string) *Service {
	return n.net.AddService(name+" of "+n.name, filepath.Join(n.dir, name+".log"), ready, func() (*exec.Cmd, error) {
		return n.Command(context.Background(), program, arguments...), nil
	})
}

// Start starts the program and returns when it is ready.
func (s *Service) Start(ctx context.Context) error {
	err := s.launch()
	if err == nil {
		err = s.await(ctx)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", s.title, err)
	}
	return nil
}

// launch starts the process. Its life ends by Stop, Kill or the Net's Close, not with
// the context of whoever started it.
func (s *Service) launch() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.daemon != nil {
		return errors.New("it runs already")
	}
	cmd, err := s.command()
	if err != nil {
		return err
	}
	s.daemon, err = s.owner.launch(cmd, s.logFile)
	return err
}

// await returns when the program that was launched is ready. The error quotes its log.
func (s *Service) await(ctx context.Context) error {
	d := s.running()
	if d == nil {
		return errors.New("it does not run")
	}
	if err := d.whileRunning(ctx, WaitLimit, s.WaitReady); err != nil {
		return fmt.Errorf("%w\n%s", err, s.LogTail(tailLines))
	}
	return nil
}

// WaitReady returns when the program says that it is ready.
func (s *Service) WaitReady(ctx context.Context) error {
	return Wait(ctx, s.title+" to be ready", s.ready)
}

// running is the program's process; nil when it was not started, or was stopped.
func (s *Service) running() *daemon {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.daemon
}

// PID is the id of the running process, 0 if there is none.
func (s *Service) PID() int {
	if d := s.running(); d != nil {
		return d.cmd.Process.Pid
	}
	return 0
}

// Crashed returns why the program has ended though it was not stopped, or nil.
func (s *Service) Crashed() error {
	d := s.running()
	if d == nil {
		return nil
	}
	select {
	case <-d.ended:
		return fmt.Errorf("%s has ended by itself: %w", s.title, d.err)
	default:
		return nil
	}
}

// Stop asks the program to end and waits until it has. One that does not end within
// WaitLimit is killed, which is an error, as is the wrong exit status of a weftd.
func (s *Service) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, WaitLimit)
	defer cancel()
	d := s.release()
	if d == nil {
		return nil
	}
	d.signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-ctx.Done():
		d.signal(syscall.SIGKILL)
		<-d.ended
		return fmt.Errorf("stop %s: killed, because it did not end: %w", s.title, ctx.Err())
	}
	if s.mustSucceed && !d.cmd.ProcessState.Success() {
		return fmt.Errorf("stop %s: %w\n%s", s.title, d.err, s.LogTail(tailLines))
	}
	return nil
}

// Restart is Stop and Start.
func (s *Service) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// TakeOver starts the program with more arguments beside the one that runs, which must end by
// itself, and returns when the new one is ready.
func (s *Service) TakeOver(ctx context.Context, arguments ...string) error {
	ctx, cancel := context.WithTimeout(ctx, WaitLimit)
	defer cancel()
	cmd, err := s.command()
	if err != nil {
		return err
	}
	cmd.Args = append(cmd.Args, arguments...)
	next, err := s.owner.launch(cmd, s.logFile)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before := s.daemon
	s.daemon = next
	s.mu.Unlock()
	select {
	case <-before.ended:
	case <-next.ended:
		return fmt.Errorf("take over %s: the next one has ended: %w\n%s", s.title, next.err, s.LogTail(tailLines))
	case <-ctx.Done():
		return fmt.Errorf("take over %s: %w\n%s", s.title, ctx.Err(), s.LogTail(tailLines))
	}
	if s.mustSucceed && !before.cmd.ProcessState.Success() {
		return fmt.Errorf("take over %s: the one before: %w\n%s", s.title, before.err, s.LogTail(tailLines))
	}
	return s.await(ctx)
}

// Kill ends the program as a crash would, and returns when it is gone. What it has
// started goes on.
func (s *Service) Kill() {
	if d := s.release(); d != nil {
		d.signal(syscall.SIGKILL)
		<-d.ended
	}
}

func (s *Service) release() *daemon {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.daemon
	s.daemon = nil
	return d
}

// Logs returns what the program has written so far, over all its runs.
func (s *Service) Logs() (string, error) {
	log, err := os.ReadFile(s.logFile)
	if err != nil {
		return "", fmt.Errorf("read the log of %s: %w", s.title, err)
	}
	return string(log), nil
}

// tailLines of a log is what an error quotes.
const tailLines = 15

// LogTail returns the last lines of what the program has written, under a heading, for
// an error message.
func (s *Service) LogTail(lines int) string {
	log, err := s.Logs()
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(log, "\n"), "\n")
	tail := all[max(0, len(all)-lines):]
	return fmt.Sprintf("--- the end of the log of %s\n%s\n---", s.title, strings.Join(tail, "\n"))
}

// LogFile is where the program writes to, over all its runs.
func (s *Service) LogFile() string { return s.logFile }
