package cniplugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// patience is how long a traced plugin may live: longer than it waits for a lock.
const patience = 2 * time.Minute

// call is a system call that a thread of the traced plugin is about to make. It is valid
// until the tracer lets the thread go on.
type call struct {
	thread int
	// at is its place among the calls of all threads since the program's first
	// instruction; the first is 1.
	at   int
	nr   uint64
	args [6]uint64
}

// verdict is what becomes of a system call.
type verdict struct {
	// kill ends the whole process before the call has done anything.
	kill bool
	// errno is returned in place of the call, which does nothing; 0 lets it happen.
	errno unix.Errno
}

// ending is what became of a traced plugin.
type ending struct {
	// calls is how many system calls were begun until the verdict, or in all.
	calls int
	// struck describes the call that was not allowed to happen; "" if all were.
	struck         string
	status         unix.WaitStatus
	hung           bool
	stdout, stderr string
}

// failure is the error that the plugin printed, nil if it succeeded.
func (e *ending) failure() (*types.Error, error) {
	switch {
	case e.hung:
		return nil, fmt.Errorf("it hung for %s", patience)
	case !e.status.Exited():
		return nil, fmt.Errorf("it ended with wait status %#x; stderr: %s", e.status, e.stderr)
	case e.status.ExitStatus() == 0:
		return nil, nil
	}
	failure := &types.Error{}
	if err := json.Unmarshal([]byte(e.stdout), failure); err != nil || failure.Msg == "" {
		return nil, fmt.Errorf("exit status %d, stdout %q is no CNI error; stderr: %s", e.status.ExitStatus(), e.stdout, e.stderr)
	}
	return failure, nil
}

// trace runs the plugin as a process on the node, and asks judge before each system call
// until it gives a verdict.
func (n *node) trace(t *testing.T, command string, args *skel.CmdArgs, judge func(*call) verdict) *ending {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(binDir, Type))
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + args.ContainerID, "CNI_NETNS=" + args.Netns,
		"CNI_IFNAME=" + args.IfName, "CNI_PATH=" + binDir,
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(args.StdinData), &stdout, &stderr
	// The process group distinguishes the plugin's threads from other children of this process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	tr := &tracer{judge: judge, known: map[int]bool{}}
	n.in(t, func() error {
		// Only the thread that started the process may trace it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			return err
		}
		tr.pid = cmd.Process.Pid
		return tr.run()
	})
	// The tracer has reaped the process already; this waits for the pipes.
	_ = cmd.Wait()
	tr.stdout, tr.stderr = strings.TrimSpace(stdout.String()), stderr.String()
	return &tr.ending
}

// tracer follows one process and all its threads (ptrace(2)).
type tracer struct {
	ending
	pid   int
	judge func(*call) verdict
	// known are the threads whose first stop has been seen.
	known map[int]bool
	// failing is the thread that is in the call to be replaced by errno; 0 is none.
	failing int
	errno   unix.Errno
	judged  bool
}

func (tr *tracer) run() error {
	var status unix.WaitStatus
	if _, err := wait(tr.pid, &status); err != nil {
		return fmt.Errorf("wait for the program to begin: %w", err)
	}
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACEEXEC |
		unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK
	if err := unix.PtraceSetOptions(tr.pid, options); err != nil {
		return fmt.Errorf("set the tracer's options: %w", err)
	}
	tr.known[tr.pid] = true
	watchdog := time.AfterFunc(patience, func() { _ = unix.Kill(tr.pid, unix.SIGKILL) })
	defer func() { tr.hung = !watchdog.Stop() }()
	thread, deliver := tr.pid, 0
	for {
		if err := tr.resume(thread, deliver); err != nil {
			return err
		}
		var err error
		if thread, err = wait(-tr.pid, &status); err != nil {
			return fmt.Errorf("wait for the plugin: %w", err)
		}
		switch {
		case status.Stopped():
			if deliver, err = tr.stopped(thread, status); err != nil {
				return err
			}
		case thread == tr.pid:
			// The first thread is reported last.
			tr.status = status
			return nil
		default:
			thread = 0
		}
	}
}

// resume lets a thread go on, with a signal or 0. Threads of a process that was killed
// need no such thing.
func (tr *tracer) resume(thread, signal int) error {
	if thread == 0 {
		return nil
	}
	resume := unix.PtraceSyscall
	if tr.judged && tr.failing != thread {
		resume = unix.PtraceCont
	}
	if err := resume(thread, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("resume thread %d: %w", thread, err)
	}
	return nil
}

// stopped looks at why a thread stands still, and returns the signal that it is to get.
func (tr *tracer) stopped(thread int, status unix.WaitStatus) (deliver int, err error) {
	switch signal := status.StopSignal(); {
	case signal == unix.SIGTRAP|0x80: // PTRACE_O_TRACESYSGOOD
		if err = tr.atSystemCall(thread); errors.Is(err, unix.ESRCH) {
			err = nil // killed in the meantime
		}
		return 0, err
	case signal == unix.SIGTRAP && status.TrapCause() > 0:
		return 0, nil
	case signal == unix.SIGSTOP && !tr.known[thread]:
		tr.known[thread] = true
		return 0, nil
	default:
		return int(signal), nil
	}
}

func (tr *tracer) atSystemCall(thread int) error {
	info, err := systemCallInfo(thread)
	switch {
	case err != nil:
		return err
	case info.op == unix.PTRACE_SYSCALL_INFO_EXIT && thread == tr.failing:
		tr.failing = 0
		return setResult(thread, -int64(tr.errno))
	case info.op != unix.PTRACE_SYSCALL_INFO_ENTRY || tr.judged:
		return nil
	}
	tr.calls++
	c := &call{thread: thread, at: tr.calls, nr: info.nr, args: info.args}
	v := tr.judge(c)
	switch {
	case v.kill:
		tr.judged, tr.struck = true, c.String()
		return unix.Kill(tr.pid, unix.SIGKILL)
	case v.errno != 0:
		tr.judged, tr.struck = true, fmt.Sprintf("%s: %s", c, unix.ErrnoName(v.errno))
		tr.failing, tr.errno = thread, v.errno
		return skip(thread)
	}
	return nil
}

// wait is wait4(2) for threads too, of one process or, negative, of a process group.
func wait(pid int, status *unix.WaitStatus) (thread int, err error) {
	for {
		thread, err = unix.Wait4(pid, status, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return thread, err
		}
	}
}

// callInfo is struct ptrace_syscall_info at the entry of a call (linux/ptrace.h).
type callInfo struct {
	op   uint8
	_    [3]byte
	_    uint32    // architecture
	_    [2]uint64 // instruction and stack pointer
	nr   uint64
	args [6]uint64
	_    [2]uint64 // of a seccomp stop alone
}

func systemCallInfo(thread int) (info callInfo, err error) {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, fmt.Errorf("ask for the system call of thread %d: %w", thread, errno)
	}
	return info, nil
}

func TestATracedPluginDoesWhatItDoesUntraced(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	pod := newNamespace(t)
	args := n.args("pod", pod.Path())
	added := n.trace(t, "ADD", args, func(*call) verdict { return verdict{} })
	if failure, err := added.failure(); failure != nil || err != nil {
		t.Fatalf("ADD: %v, %v", failure, err)
	}
	if got := len(pod.addrs(t, "eth0")); got != 2 {
		t.Errorf("the pod has %d addresses", got)
	}
	deleted := n.trace(t, "DEL", args, func(*call) verdict { return verdict{} })
	if failure, err := deleted.failure(); failure != nil || err != nil {
		t.Fatalf("DEL: %v, %v", failure, err)
	}
	n.requireNothingLeft()
	if added.calls < 100 || deleted.calls < 100 {
		t.Errorf("ADD made %d system calls, DEL %d", added.calls, deleted.calls)
	}
}
