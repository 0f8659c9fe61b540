package encap

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Unread returns how many bytes wait in the socket that c sends from.
func Unread(t *testing.T, c *Conn) int {
	t.Helper()
	n, err := unix.IoctlGetInt(int(c.sending.Fd()), unix.SIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// RefuseRuns has the kernel refuse runs on a socket.
func RefuseRuns(t *testing.T, c *Conn) {
	t.Helper()
	if err := unix.SetsockoptInt(int(c.sending.Fd()), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
}

// Marks returns the marks of what c's two sockets send.
func Marks(t *testing.T, c *Conn) (receiving, sending int) {
	t.Helper()
	var err, errSending error
	receiving, err = unix.GetsockoptInt(int(c.receiving.Fd()), unix.SOL_SOCKET, unix.SO_MARK)
	sending, errSending = unix.GetsockoptInt(int(c.sending.Fd()), unix.SOL_SOCKET, unix.SO_MARK)
	if err != nil || errSending != nil {
		t.Fatal(err, errSending)
	}
	return receiving, sending
}
