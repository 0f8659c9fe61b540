package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/peercred"
)

// SocketName is the name, in the run directory, of the socket at which a weftd hands over.
const SocketName = "handover.sock"

const (
	// askLimit is how long either side waits for a message that the other one has ready.
	askLimit = 5 * time.Second

	maxMessage = 64 << 10
)

// standLimit is how long the lanes stand still at most before the old process goes on. The next one
// takes some milliseconds. Tests change it.
var standLimit = 3 * time.Second

// answerLimit is how long a weftd that is asked may take to answer: it may be applying a list of nodes.
// Tests change it.
var answerLimit = 10 * time.Second

// request is what the next process sends.
type request struct {
	Version int  `json:"version"`
	Spec    Spec `json:"spec"`

	// Namespace is the network namespace of the process: device and inode (namespaces(7)).
	Namespace string `json:"namespace"`
}

// answer is what the old process sends. Unless it refuses, with it come the lock of the run
// directory, the memory, and State.files.
type answer struct {
	Rejected string `json:"rejected,omitempty"` // why this process goes on, whatever the other one does
	Refused  string `json:"refused,omitempty"`
}

// Listener is where the next process asks. Only root, and the user that weftd runs as, can.
type Listener struct {
	socket    *net.UnixListener
	namespace string
}

// Listen opens the socket. One that another process has left is replaced: the caller holds the run
// directory's lock.
func Listen(runDir string) (*Listener, error) {
	namespace, err := networkNamespace()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(runDir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old hand-over socket: %w", err)
	}
	socket, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("open the hand-over socket: %w", err)
	}
	socket.SetUnlinkOnClose(false) // it may be the next process's by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close the hand-over socket to others: %w", err), socket.Close())
	}
	return &Listener{socket, namespace}, nil
}

// networkNamespace returns that of this process.
func networkNamespace() (string, error) {
	var at unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &at); err != nil {
		return "", fmt.Errorf("look at the network namespace of this process: %w", err)
	}
	return fmt.Sprintf("%d:%d", at.Dev, at.Ino), nil
}

// Close ends Accept.
func (l *Listener) Close() error { return l.socket.Close() }

// Request is another process's wish to go on with the data path.
type Request struct {
	Spec Spec
	PID  int // the other process's

	conn    *net.UnixConn
	refused error // its version, if this process can't hand over in it
}

// Accept waits for the next request. It leaves out what is none, and rejects processes of other
// network namespaces: the device and the sockets would go on there, without routes and guard. If
// this process is a service of systemd, it rejects what is none.
func (l *Listener) Accept() (*Request, error) {
	for {
		conn, err := l.socket.AcceptUnix()
		if err != nil {
			return nil, fmt.Errorf("accept a hand-over: %w", err)
		}
		if r, err := l.receive(conn); err == nil {
			return r, nil
		}
		conn.Close()
	}
}

func (l *Listener) receive(conn *net.UnixConn) (*Request, error) {
	peer, err := credentials(conn)
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(askLimit))
	b := make([]byte, maxMessage)
	n, err := conn.Read(b)
	if err != nil {
		return nil, err
	}
	var asked request
	if err := json.Unmarshal(b[:n], &asked); err != nil {
		return nil, err
	}
	if asked.Namespace != l.namespace {
		return nil, reject(conn, fmt.Errorf("it runs in another network namespace; start this one there, for example with nsenter --net --target=%d", os.Getpid()))
	}
	if err := ofThisService(int(peer.Pid)); err != nil {
		return nil, reject(conn, err)
	}
	r := &Request{Spec: asked.Spec, PID: int(peer.Pid), conn: conn}
	if asked.Version != version {
		r.refused = fmt.Errorf("it asks in version %d, and this weftd knows version %d", asked.Version, version)
	}
	return r, nil
}

// reject reports to a process that must not go on with the data path that this one does, and why.
func reject(conn *net.UnixConn, why error) error {
	b, err := json.Marshal(answer{Rejected: why.Error()})
	if err == nil {
		_, err = conn.Write(b)
	}
	return errors.Join(why, err)
}

// credentials returns those of the other process, which must be of root or of this process's user.
func credentials(conn *net.UnixConn) (*unix.Ucred, error) {
	peer, err := peercred.Of(conn)
	if err != nil {
		return nil, err
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("a process of uid %d takes part in the hand-over", peer.Uid)
	}
	return peer, nil
}

// Check returns why what this process has can't be handed over to the other one, or nil.
func (r *Request) Check(has Spec) error { return errors.Join(r.refused, has.differs(r.Spec)) }

// Refuse reports why nothing is handed over. The other process then waits until this one has ended.
func (r *Request) Refuse(why error) {
	b, err := json.Marshal(answer{Refused: why.Error()})
	if err == nil {
		_, _ = r.conn.Write(b) // if it has gone, that is all the same
	}
}

// Offer hands s over with the lock of the run directory, and returns nil once the other process has
// claimed it. After an error other than ErrUnclear, s is still this process's. Either way the
// other process learns of this one's end: the connection is not closed before, unless by Release.
func (r *Request) Offer(runDir string, s *State, lock *os.File) error {
	ticket := newTicket()
	memory, err := write(s, ticket)
	if err != nil {
		r.conn.Close()
		return err
	}
	defer memory.Close()
	step("sealed")
	if err := issue(runDir, ticket); err != nil {
		r.conn.Close()
		return err
	}
	step("issued")
	sendErr := r.send(append([]*os.File{lock, memory}, s.files()...))
	step("sent")
	if sendErr == nil {
		_ = r.conn.SetReadDeadline(time.Now().Add(standLimit))
		_, _ = r.conn.Read(make([]byte, 1)) // a byte says that it has claimed; so may its end, or nothing at all
	}
	switch err := claim(runDir, ticket); {
	case errors.Is(err, ErrClaimed):
		return nil
	case err != nil: // the other one may still claim it
		return errors.Join(ErrUnclear, err)
	}
	r.conn.Close()
	return errors.Join(errors.New("the next weftd has not taken over what was handed to it"), sendErr)
}

// Release tells the other process that this one has let go of everything, so that it need not wait.
func (r *Request) Release() { _ = r.conn.Close() }

// ErrUnclear says that this process can't find out whether the other one has claimed the state, and may
// still claim it. So this process must not go on with it.
var ErrUnclear = errors.New("it is not known which weftd goes on")

func (r *Request) send(files []*os.File) error {
	b, err := json.Marshal(answer{})
	if err != nil {
		return fmt.Errorf("answer the next weftd: %w", err)
	}
	return withDescriptors(files, func(rights []byte) error {
		if _, _, err := r.conn.WriteMsgUnix(b, rights, nil); err != nil {
			return fmt.Errorf("send descriptors to the next weftd: %w", err)
		}
		return nil
	})
}

// withDescriptors calls do with the control message that carries the descriptors (unix(7),
// SCM_RIGHTS). Fd would change how the files are used.
func withDescriptors(files []*os.File, do func(rights []byte) error) (err error) {
	descriptors := make([]int, len(files))
	var hold func(i int) error
	hold = func(i int) error { // open until all are sent
		if i == len(files) {
			return do(unix.UnixRights(descriptors...))
		}
		raw, err := files[i].SyscallConn()
		if err != nil {
			return fmt.Errorf("reach a descriptor: %w", err)
		}
		var inner error
		err = raw.Control(func(fd uintptr) {
			descriptors[i] = int(fd)
			inner = hold(i + 1)
		})
		return errors.Join(err, inner)
	}
	return hold(0)
}
