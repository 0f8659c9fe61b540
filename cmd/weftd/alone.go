package main

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// beAlone makes sure, until the result is closed, that no other weftd runs in this
// network namespace: its routes, rules and guard table have one owner, whatever port
// and device that one was told to use. The kernel knows an abstract socket once in
// each network namespace, and frees it however its owner ends (unix(7)).
func beAlone() (io.Closer, error) {
	listener, err := net.Listen("unix", "@weftd")
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, errors.New("another weftd runs in this network namespace already, and two would undo each other's routes; stop it first (ss -lxp 'src @weftd' shows it)")
	}
	if err != nil {
		return nil, fmt.Errorf("claim the network namespace: %w", err)
	}
	return listener, nil
}
