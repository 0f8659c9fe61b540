package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Service is a program that runs until it is stopped, and can be started again. Its
// methods may be called concurrently.
type Service struct {
	name    string
	logFile string
	owner   *Net

	// command prepares a run.
	command func() *exec.Cmd

	// ready is called again and again until it returns nil.
	ready func(context.Context) error

	mu     sync.Mutex
	daemon *daemon // nil when it was not started, or was stopped
}

// AddService is a program that is to run in the node's network namespace, and starts it not yet.
func (n *Node) AddService(name string, ready func(context.Context) error, program string, arguments ...string) *Service {
	return n.net.addService(&Service{
		name:    name + " of " + n.name,
		logFile: filepath.Join(n.dir, name+".log"),
		command: func() *exec.Cmd { return n.Command(context.Background(), program, arguments...) },
		ready:   ready,
	})
}

// Start starts the program and returns when it is ready.
func (s *Service) Start(ctx context.Context) error {
	d, err := s.launch()
	if err == nil {
		err = d.whileRunning(ctx, WaitLimit, func(ctx context.Context) error {
			return Wait(ctx, "it to be ready", s.ready)
		})
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, s.LogTail(tailLines))
		}
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return nil
}

// launch starts the process. Its life ends by Stop, Kill or the Net's Close, not with
// the context of whoever started it.
func (s *Service) launch() (*daemon, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.daemon != nil {
		return nil, errors.New("it runs already")
	}
	d, err := s.owner.launch(s.command(), s.logFile)
	if err != nil {
		return nil, err
	}
	s.daemon = d
	return d, nil
}

// Stop asks the program to end and waits until it has, whatever its exit status. One that
// does not end within WaitLimit is killed, which is an error.
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
		return nil
	case <-ctx.Done():
		d.signal(syscall.SIGKILL)
		<-d.ended
		return fmt.Errorf("stop %s: killed, because it did not end: %w", s.name, ctx.Err())
	}
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

// signal reaches the program itself: nsenter, when it has entered a Machine, has it as a
// child, and ends after it.
func (d *daemon) signal(signal syscall.Signal) {
	pid := d.cmd.Process.Pid
	if command := process(pid).command(); strings.HasPrefix(command, "nsenter ") {
		children, _ := os.ReadFile(process(pid).file(fmt.Sprintf("task/%d/children", pid)))
		if child, err := strconv.Atoi(strings.TrimSpace(string(children))); err == nil {
			pid = child
		}
	}
	_ = syscall.Kill(pid, signal)
}

// LogTail returns the last lines of what the program has written, under a heading, for
// an error message.
func (s *Service) LogTail(lines int) string {
	log, err := os.ReadFile(s.logFile)
	if err != nil {
		return err.Error()
	}
	return logTail(s.name, string(log), lines)
}

// LogFile is where the program writes to, over all its runs.
func (s *Service) LogFile() string { return s.logFile }
