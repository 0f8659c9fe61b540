package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// named adds to an error that says that an address is taken which processes have its port.
func named(err error, addr netip.AddrPort) error {
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	var holders []string
	for _, table := range []string{"udp", "udp6", "tcp", "tcp6"} {
		if strings.HasPrefix(table, "udp") == strings.Contains(err.Error(), "UDP") {
			holders = append(holders, holdersOf("/proc", table, addr.Port())...)
		}
	}
	if len(holders) == 0 {
		return err
	}
	return fmt.Errorf("port %d is held by %s: %w", addr.Port(), strings.Join(holders, ", "), err)
}

// holdersOf returns the processes that have a socket with a local port, by the kernel's table
// of a protocol in this network namespace (proc_net_tcp.rst). Sockets of the kernel itself,
// as of a VXLAN device, and of processes that this one can't see, are left out.
func holdersOf(proc, table string, port uint16) []string {
	data, err := os.ReadFile(filepath.Join(proc, "thread-self/net", table))
	if err != nil {
		return nil
	}
	inodes := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 10 {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err != nil || uint16(n) != port {
			continue
		}
		if remote := fields[2]; !strings.HasSuffix(remote, ":0000") { // a connection, not a listener
			continue
		}
		inodes["socket:["+fields[9]+"]"] = true
	}
	delete(inodes, "socket:[0]")
	if len(inodes) == 0 {
		return nil
	}
	var holders []string
	descriptors, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	for _, process := range descriptors {
		files, _ := os.ReadDir(filepath.Join(process, "fd"))
		for _, f := range files {
			if target, err := os.Readlink(filepath.Join(process, "fd", f.Name())); err != nil || !inodes[target] {
				continue
			}
			name, _ := os.ReadFile(filepath.Join(process, "comm"))
			holder := fmt.Sprintf("%s (pid %s", strings.TrimSpace(string(name)), filepath.Base(process))
			if info, err := os.Stat(process); err == nil {
				holder += fmt.Sprintf(", uid %d", info.Sys().(*syscall.Stat_t).Uid)
			}
			holders = append(holders, holder+")")
			break
		}
	}
	return holders
}
