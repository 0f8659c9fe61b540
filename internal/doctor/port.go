package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/encap"
	"weft/internal/status"
)

// checkPort looks which program has weft's UDP port.
func checkPort(ctx context.Context, h *host) []Finding {
	listen := h.Config.Listen
	if !h.running {
		err := encap.CheckFree(ctx, listen)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return taken(listen, h.holders(listen.Port()))
		case err != nil:
			return of(Failed, err.Error())
		}
		return ok("UDP port %s is free", listen)
	}
	self, err := status.Server(h.Socket)
	if err != nil {
		return skipped("%v", err)
	}
	holders := h.holders(listen.Port())
	others := slices.DeleteFunc(slices.Clone(holders), func(p process) bool {
		return p.pid == self && (self != 0 || p == unseen) // weftd may be in another container
	})
	switch {
	case len(others) > 0:
		return taken(listen, others)
	case len(holders) == 0:
		return skipped("weftd has not opened UDP port %s yet", listen)
	}
	return ok("weftd has UDP port %s", listen)
}

func taken(listen netip.AddrPort, by []process) []Finding {
	names := make([]string, len(by))
	for i, p := range by {
		names[i] = p.String()
	}
	return fail(fmt.Sprintf("UDP port %s is taken by %s", listen, strings.Join(names, " and ")), "stop that program or remove that device, or write another port under listen on all nodes")
}

// process has a socket. Without a number it is the kernel, or not visible.
type process struct {
	pid  int
	name string
}

func (p process) String() string {
	if p.pid == 0 {
		return p.name
	}
	return fmt.Sprintf("%s (pid %d)", p.name, p.pid)
}

// unseen stands for a process of which only the socket can be seen.
var unseen = process{name: "a process that can't be seen from here"}

// holders returns the programs that receive on a UDP port, on any address.
func (h *host) holders(port uint16) (found []process) {
	inodes := map[string]bool{}
	for _, name := range []string{"udp", "udp6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if err != nil {
			continue // no IPv6
		}
		for _, inode := range socketsAt(f, port) {
			inodes[inode] = true
		}
		f.Close()
	}
	delete(inodes, "0") // the kernel's own, or of one that was just closed
	links, _ := netlink.LinkList()
	for _, link := range links {
		if v, ok := link.(*netlink.Vxlan); ok && v.Port == int(port) {
			found = append(found, process{name: "the VXLAN device " + v.Name})
		}
	}
	for _, p := range owners(inodes) {
		if !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	if len(inodes) > 0 && len(found) == 0 {
		found = append(found, unseen)
	}
	return found
}

// socketsAt returns the inodes of the sockets at a port, out of /proc/net/udp (proc_pid_net(5)).
func socketsAt(table io.Reader, port uint16) (inodes []string) {
	const localAddress, inode = 1, 9 // columns
	for lines := bufio.NewScanner(table); lines.Scan(); {
		columns := strings.Fields(lines.Text())
		if len(columns) <= inode {
			continue
		}
		_, text, _ := strings.Cut(columns[localAddress], ":")
		if p, err := strconv.ParseUint(text, 16, 16); err == nil && uint16(p) == port {
			inodes = append(inodes, columns[inode])
		}
	}
	return inodes
}

// owners returns the processes that have sockets, as far as this process may see.
func owners(inodes map[string]bool) (found []process) {
	if len(inodes) == 0 {
		return nil
	}
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range descriptors {
		target, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		inode, socket := strings.CutPrefix(target, "socket:[")
		if !socket || !inodes[strings.TrimSuffix(inode, "]")] {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if p := (process{pid, strings.TrimSpace(string(name))}); !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	return found
}
