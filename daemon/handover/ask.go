package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of Ask.
var (
	// ErrNobody says that no weftd listens for the next one, or that it has ended before it answered.
	ErrNobody = errors.New("no weftd hands over")

	// ErrRefused says that the running weftd hands nothing over, and ends.
	ErrRefused = errors.New("the running weftd hands nothing over")
)

// Predecessor is the weftd that was asked to hand over.
type Predecessor struct {
	PID  int
	Lock *os.File // of the run directory; nil with ErrRefused

	conn *net.UnixConn
}

// Ask has the weftd that uses the run directory stop its lanes and offer them. With ErrRefused there
// is no offer, and the Predecessor ends.
func Ask(runDir string, spec Spec) (*Predecessor, *Offer, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(runDir, SocketName), Net: "unixpacket"})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil, ErrNobody
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reach the running weftd: %w", err)
	}
	p, offer, err := ask(conn, runDir, spec)
	if err != nil && !errors.Is(err, ErrRefused) {
		conn.Close()
	}
	return p, offer, err
}

func ask(conn *net.UnixConn, runDir string, spec Spec) (*Predecessor, *Offer, error) {
	other, err := credentials(conn)
	if err != nil {
		return nil, nil, err
	}
	namespace, err := networkNamespace()
	if err != nil {
		return nil, nil, err
	}
	b, err := json.Marshal(request{version, spec, namespace})
	if err != nil {
		return nil, nil, fmt.Errorf("ask the running weftd: %w", err)
	}
	_ = conn.SetDeadline(time.Now().Add(answerLimit))
	if _, err := conn.Write(b); err != nil {
		return nil, nil, unanswered(err, other.Pid)
	}
	message, control := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*mostDescriptors))
	n, controlLen, _, _, err := conn.ReadMsgUnix(message, control)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, nil, unanswered(err, other.Pid)
	}
	_ = conn.SetDeadline(time.Time{})
	files, err := descriptors(control[:controlLen])
	if err != nil {
		return nil, nil, err
	}
	var got answer
	if err := json.Unmarshal(message[:n], &got); err != nil {
		closeAll(files)
		return nil, nil, fmt.Errorf("parse the running weftd's answer: %w", err)
	}
	p := &Predecessor{PID: int(other.Pid), conn: conn}
	switch {
	case got.Rejected != "":
		closeAll(files)
		return nil, nil, errors.New(got.Rejected)
	case got.Refused != "":
		closeAll(files)
		return p, nil, fmt.Errorf("%w: %s", ErrRefused, got.Refused)
	case len(files) < 2:
		closeAll(files)
		return nil, nil, fmt.Errorf("the running weftd hands over %d descriptors", len(files))
	}
	step("received")
	p.Lock = files[0]
	return p, &Offer{runDir: runDir, memory: files[1], files: files[2:]}, nil
}

// unanswered is why the running weftd, which has this number, has not answered.
func unanswered(err error, pid int32) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return ErrNobody
	case errors.Is(err, os.ErrDeadlineExceeded):
		p := &Predecessor{PID: int(pid)}
		return fmt.Errorf("%v has not answered for %v; %s", p, answerLimit, p.Remedy())
	}
	return fmt.Errorf("wait for its answer: %w", err)
}

// mostDescriptors is how many one message may carry (SCM_MAX_FD).
const mostDescriptors = 253

func descriptors(control []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("parse what came with the running weftd's answer: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("parse the descriptors of the running weftd: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}

// String names it. A process in another container has no number here (pid_namespaces(7)).
func (p *Predecessor) String() string {
	if p.PID == 0 {
		return "a process in another container"
	}
	return fmt.Sprintf("process %d", p.PID)
}

// Remedy is what to do if it hangs.
func (p *Predecessor) Remedy() string {
	if p.PID == 0 {
		return "delete its pod"
	}
	return fmt.Sprintf("if it is stopped, let it go on with kill -CONT %d, otherwise end it with kill -KILL %d", p.PID, p.PID)
}

// Claimed reports that the offer was claimed, so that the other process ends.
func (p *Predecessor) Claimed() { _, _ = p.conn.Write([]byte{1}) }

// AwaitEnd returns nil when it has ended, or why ctx has. One goroutine may call it at a time.
func (p *Predecessor) AwaitEnd(ctx context.Context) error {
	_ = p.conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := p.conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) { // it says nothing any more
		return fmt.Errorf("wait for the end of %v: %w", p, context.Cause(ctx))
	}
	return nil
}

// Close gives up: it goes on with what was not claimed.
func (p *Predecessor) Close() {
	if p.Lock != nil {
		p.Lock.Close()
	}
	p.conn.Close()
}
