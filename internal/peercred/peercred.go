// Package peercred says which process is at the other end of a unix socket.
package peercred

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Of returns the credentials of the process that connected, or, at the end that connected, of the one
// that listens (SO_PEERCRED in unix(7)). The process number is this process namespace's: 0 for a process
// in another container.
func Of(conn *net.UnixConn) (peer *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach a unix socket: %w", err)
	}
	controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(controlErr, err); err != nil {
		return nil, fmt.Errorf("read the credentials of the other process (SO_PEERCRED): %w", err)
	}
	return peer, nil
}
