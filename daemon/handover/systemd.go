package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// The names of descriptors in systemd's store (sd_pid_notify_with_fds(3), FDNAME).
const (
	memoryName = "weft-memory"
	namePrefix = "weft-"
)

// barrierLimit is how long to wait until systemd has read what was sent to it.
const barrierLimit = 5 * time.Second

// names returns those of State.files.
func names(lanes int) (all []string) {
	for _, kind := range []string{"queue", "receiving", "sending"} {
		for lane := range lanes {
			all = append(all, fmt.Sprintf("%s%s-%d", namePrefix, kind, lane))
		}
	}
	return all
}

// Supervised reports whether systemd listens to this process, and may keep its descriptors.
func Supervised() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// ofThisService returns an error if this process is a service of systemd, and another one is not: it
// would be in the control group of a shell, for example, and systemd would kill it at the next stop
// without awaiting its end.
func ofThisService(pid int) error {
	if !Supervised() {
		return nil
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err == nil && strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getppid())) {
		return nil
	}
	if pid == 0 {
		return errors.New("systemd runs a weftd on this node already; stop that one first (systemctl disable --now weftd), or keep this pod off the node")
	}
	return errors.New("systemd runs the other weftd, and not this one; have that one start the next: systemctl kill --kill-who=main --signal=USR2 weftd")
}

// Store gives s to systemd, which keeps it for the next start of the service if FileDescriptorStoreMax=
// lets it, and closes it when the service is stopped for good. After an error s is still this
// process's, which should then close it.
func Store(runDir string, s *State) error {
	ticket := newTicket()
	memory, err := write(s, ticket)
	if err != nil {
		return err
	}
	defer memory.Close()
	step("sealed")
	if err := issue(runDir, ticket); err != nil {
		return err
	}
	step("issued")
	for i, name := range append(names(s.Spec.Lanes), memoryName) {
		file := append(s.files(), memory)[i]
		// FDPOLL=0: otherwise systemd closes descriptors that report an error, such as that of a
		// device that was deleted.
		if err := notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, file); err != nil {
			return errors.Join(err, claim(runDir, ticket))
		}
		step("stored " + name)
	}
	if err := barrier(); err != nil {
		return errors.Join(err, claim(runDir, ticket))
	}
	step("sent")
	return nil
}

// Inherited returns what systemd has kept from the last run of the service, or nil.
func Inherited(runDir string) *Offer {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil
	}
	byName := map[string]*os.File{}
	lanes := 0
	for _, f := range files {
		name := f.Name()
		if !strings.HasPrefix(name, namePrefix) || byName[name] != nil {
			f.Close()
			continue
		}
		byName[name] = f
		if lane, ok := strings.CutPrefix(name, namePrefix+"queue-"); ok {
			if n, err := strconv.Atoi(lane); err == nil {
				lanes = max(lanes, n+1)
			}
		}
	}
	o := &Offer{runDir: runDir, memory: byName[memoryName]}
	for _, name := range names(min(lanes, mostDescriptors)) {
		if f := byName[name]; f != nil {
			o.files = append(o.files, f)
			delete(byName, name)
		}
	}
	o.detach = func() { withdraw(files) }
	delete(byName, memoryName)
	for _, f := range byName {
		f.Close()
	}
	if o.memory == nil {
		o.Close()
		return nil
	}
	return o
}

// withdraw has systemd forget the descriptors, so that no later start gets them, and nothing keeps
// queues and sockets open that this process closes.
func withdraw(files []*os.File) {
	for _, f := range files {
		_ = notify("FDSTOREREMOVE=1\nFDNAME=" + f.Name())
	}
	_ = barrier()
	step("withdrawn")
}

// NewMainProcess names another process to systemd as the service, and waits until systemd has read
// that.
func NewMainProcess(pid int) error {
	return errors.Join(notify("MAINPID="+strconv.Itoa(pid)), barrier())
}

// barrier waits until systemd has read all earlier messages: it looks for the sender when it reads,
// and ignores processes that have ended (sd_notify_barrier(3)).
func barrier() error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("wait for systemd: %w", err)
	}
	defer r.Close()
	err = notify("BARRIER=1", w)
	w.Close()
	if err != nil {
		return err
	}
	_ = r.SetReadDeadline(time.Now().Add(barrierLimit))
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("systemd has not answered for %v", barrierLimit)
	}
	return nil
}

// notify sends a message with descriptors to systemd (sd_notify(3)), which go-systemd can't.
func notify(message string, files ...*os.File) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	return withDescriptors(files, func(rights []byte) (err error) {
		// WriteMsgUnix takes no socket that is connected.
		writeErr := raw.Write(func(fd uintptr) bool {
			err = unix.Sendmsg(int(fd), []byte(message), rights, nil, 0)
			return !errors.Is(err, unix.EAGAIN)
		})
		if err := errors.Join(writeErr, err); err != nil {
			return fmt.Errorf("send %q to systemd: %w", strings.ReplaceAll(message, "\n", " "), err)
		}
		return nil
	})
}
