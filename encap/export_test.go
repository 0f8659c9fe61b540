package encap

import (
	"testing"

	"golang.org/x/sys/unix"
)

// RefuseRuns has the kernel refuse runs on a socket.
func RefuseRuns(t *testing.T, c *Conn) {
	t.Helper()
	if err := unix.SetsockoptInt(int(c.file.Fd()), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
}
