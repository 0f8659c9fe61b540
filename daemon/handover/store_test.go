package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// store is a stand-in for systemd: it keeps descriptors, and answers barriers.
type store struct {
	socket *net.UnixConn
	kept   []*os.File
}

func newStore(t *testing.T) (s *store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &store{socket: socket}, path
}

// serve takes messages until a process has ended and all that it had sent is read.
func (s *store) serve(t *testing.T, wait func() string) (end string) {
	t.Helper()
	ended := make(chan string, 1)
	go func() {
		ended <- wait()
		_ = s.socket.SetReadDeadline(time.Unix(1, 0))
	}()
	_ = s.socket.SetReadDeadline(time.Time{})
	message, control := make([]byte, 4096), make([]byte, 4096)
	for {
		n, controlLen, _, _, err := s.socket.ReadMsgUnix(message, control)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return <-ended
		}
		if err != nil {
			t.Fatal(err)
		}
		files, err := descriptors(control[:controlLen])
		if err != nil {
			t.Fatal(err)
		}
		s.take(string(message[:n]), files)
	}
}

func (s *store) take(message string, files []*os.File) {
	_, name, _ := strings.Cut(message, "FDNAME=")
	switch {
	case strings.HasPrefix(message, "FDSTORE=1\n"):
		for _, f := range files {
			s.kept = append(s.kept, rename(f, name))
		}
	case strings.HasPrefix(message, "FDSTOREREMOVE=1\n"):
		var kept []*os.File
		for _, f := range s.kept {
			if f.Name() == name {
				f.Close()
			} else {
				kept = append(kept, f)
			}
		}
		s.kept = kept
	default:
		closeAll(files)
	}
}

// rename returns the descriptor of a file under another name.
func rename(f *os.File, name string) *os.File {
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		panic(err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// next starts a process with what is kept.
func (s *store) next(t *testing.T, dir, notify, kill string) string {
	t.Helper()
	var names []string
	for _, f := range s.kept {
		names = append(names, f.Name())
	}
	return s.serve(t, start(t, "next, started by systemd", dir, []string{
		envKill + "=" + kill, "NOTIFY_SOCKET=" + notify, "LISTEN_FDS=" + fmt.Sprint(len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}, s.kept...))
}

// Whatever process dies where, systemd starts the next one, and that one dies as well, or not.
func TestCrashAroundSystemdsStore(t *testing.T) {
	t.Parallel()
	oldSteps := []string{"worked", "exported", "sealed", "issued", "stored weft-queue-0", "stored weft-memory", "sent"}
	nextSteps := []string{"inherited", "withdrawn", "checked", "claimed", "imported", "worked"}
	for _, killOld := range append([]string{""}, oldSteps...) {
		for _, killNext := range append([]string{""}, nextSteps...) {
			t.Run(fmt.Sprintf("old %s, next %s", killOld, killNext), func(t *testing.T) {
				t.Parallel()
				dir := prepare(t)
				s, notify := newStore(t)
				t.Log(s.serve(t, start(t, "old, stopped by systemd", dir, []string{envKill + "=" + killOld, "NOTIFY_SOCKET=" + notify})))
				t.Log(s.next(t, dir, notify, killNext))
				if lives := expectOnce(t, dir) / 10; killOld == "" && (killNext == "" || killNext == "worked") && lives != 2 {
					t.Errorf("%d processes had the keys", lives)
				}
				end := s.next(t, dir, notify, "") // systemd starts it again
				t.Log(end)
				lives := expectOnce(t, dir) / 10
				if got := end == ""; killOld == "" && got != (killNext == "inherited") {
					t.Errorf("the second one gets the keys: %v, when the first has died at %q", got, killNext)
				}
				if lives > 2 {
					t.Errorf("%d processes had the keys", lives)
				}
			})
		}
	}
}

// A state that was kept, and used, and is handed out once more, as after a crash of the process that
// used it, is refused: even if systemd had kept everything.
func TestUsedStateIsRefused(t *testing.T) {
	t.Parallel()
	dir := prepare(t)
	s, notify := newStore(t)
	t.Log(s.serve(t, start(t, "old, stopped by systemd", dir, []string{"NOTIFY_SOCKET=" + notify})))
	var copies []*os.File
	for _, f := range s.kept {
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		syscall.CloseOnExec(fd)
		copies = append(copies, os.NewFile(uintptr(fd), f.Name()))
	}
	if end := s.next(t, dir, notify, ""); end != "" {
		t.Error(end)
	}
	s.kept = copies
	if end := s.next(t, dir, notify, ""); !strings.Contains(end, ErrClaimed.Error()) {
		t.Errorf("the second one: %s", end)
	}
	if lives := expectOnce(t, dir) / 10; lives != 2 {
		t.Errorf("%d processes had the keys", lives)
	}
}
