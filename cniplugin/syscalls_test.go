package cniplugin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// systemCall is one of the kernel's calls that can fail for reasons outside the plugin.
type systemCall struct {
	name string
	// path is which argument is a path, at a directory in the argument before; if it is
	// noPath, the first argument is a descriptor.
	path int
	// failures are the errors it can have, besides those of any socket.
	failures []unix.Errno
}

const noPath = -1

var (
	disk     = []unix.Errno{unix.EIO, unix.ENOSPC, unix.EROFS}
	medium   = []unix.Errno{unix.EIO}
	noMemory = []unix.Errno{unix.ENOMEM, unix.ENOBUFS}
	opening  = []unix.Errno{unix.EIO, unix.ENOSPC, unix.EROFS, unix.EMFILE}
)

// systemCalls has every call that the plugin makes on files, sockets and namespaces. What
// the Go runtime asks for itself (memory, threads, time) is not in it: without that no Go
// program runs.
var systemCalls = map[uint64]systemCall{
	unix.SYS_OPENAT:     {"openat", 1, opening},
	unix.SYS_MKDIRAT:    {"mkdirat", 1, disk},
	unix.SYS_UNLINKAT:   {"unlinkat", 1, disk},
	unix.SYS_RENAMEAT:   {"renameat", 1, disk},
	unix.SYS_RENAMEAT2:  {"renameat2", 1, disk},
	unix.SYS_LINKAT:     {"linkat", 1, disk},
	unix.SYS_STATFS:     {"statfs", 0, medium},
	unix.SYS_NEWFSTATAT: {"newfstatat", 1, medium},
	unix.SYS_READLINKAT: {"readlinkat", 1, medium},
	unix.SYS_READ:       {"read", noPath, medium},
	unix.SYS_PREAD64:    {"pread64", noPath, medium},
	unix.SYS_GETDENTS64: {"getdents64", noPath, medium},
	unix.SYS_FSTAT:      {"fstat", noPath, medium},
	unix.SYS_FSTATFS:    {"fstatfs", noPath, medium},
	unix.SYS_WRITE:      {"write", noPath, disk},
	unix.SYS_PWRITE64:   {"pwrite64", noPath, disk},
	unix.SYS_FTRUNCATE:  {"ftruncate", noPath, disk},
	unix.SYS_FSYNC:      {"fsync", noPath, disk},
	unix.SYS_FDATASYNC:  {"fdatasync", noPath, disk},
	unix.SYS_CLOSE:      {"close", noPath, disk},
	unix.SYS_FCNTL:      {"fcntl", noPath, []unix.Errno{unix.EIO, unix.ENOLCK}},

	unix.SYS_SOCKET:      {"socket", noPath, []unix.Errno{unix.ENOBUFS, unix.EMFILE}},
	unix.SYS_BIND:        {"bind", noPath, noMemory},
	unix.SYS_GETSOCKNAME: {"getsockname", noPath, noMemory},
	unix.SYS_SETSOCKOPT:  {"setsockopt", noPath, noMemory},
	unix.SYS_SENDTO:      {"sendto", noPath, noMemory},
	unix.SYS_SENDMSG:     {"sendmsg", noPath, noMemory},
	unix.SYS_RECVFROM:    {"recvfrom", noPath, noMemory},
	unix.SYS_RECVMSG:     {"recvmsg", noPath, noMemory},
	unix.SYS_SETNS:       {"setns", noPath, []unix.Errno{unix.ENOMEM}},
}

// netlinkObject stands for a socket where a path is asked for: the plugin has no others.
const netlinkObject = "netlink"

// object returns the file that the call is about, or netlinkObject, or "" if it is
// something that the runtime or the kernel has no name for.
func (c *call) object() string {
	known, ok := systemCalls[c.nr]
	if !ok {
		return ""
	}
	switch {
	case c.nr == unix.SYS_SOCKET:
		return netlinkObject
	case known.path == noPath:
		return c.descriptor(c.args[0])
	}
	path := c.text(c.args[known.path])
	if !filepath.IsAbs(path) && known.path > 0 {
		return filepath.Join(c.descriptor(c.args[known.path-1]), path)
	}
	return path
}

func (c *call) descriptor(fd uint64) string {
	target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.thread, int32(fd)))
	switch {
	case strings.HasPrefix(target, "socket:"):
		return netlinkObject
	case strings.HasPrefix(target, "anon_inode:"): // the runtime's poller
		return ""
	}
	return target
}

// text reads a string out of the plugin's memory, of less than a page.
func (c *call) text(address uint64) string {
	const page = 4096
	var buffer [2 * page]byte
	local := []unix.Iovec{{Base: &buffer[0], Len: uint64(len(buffer))}}
	// In two parts, as the page behind the string's first may not be there.
	rest := page - int(address%page)
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: rest}, {Base: uintptr(address) + uintptr(rest), Len: page}}
	n, _ := unix.ProcessVMReadv(c.thread, local, remote, 0)
	text, _, _ := strings.Cut(string(buffer[:max(n, 0)]), "\x00")
	return text
}

// failures returns the errors that the call can have on what it is about.
func (c *call) failures() []unix.Errno {
	known := systemCalls[c.nr]
	switch object := c.object(); {
	case object == "":
		return nil
	case object == netlinkObject && !slices.Contains(known.failures, unix.ENOBUFS):
		return nil // closing one, say
	case c.nr == unix.SYS_FCNTL && strings.HasPrefix(object, "pipe:"):
		return nil // the runtime's look at its standard descriptors
	}
	return known.failures
}

func (c *call) String() string {
	known, ok := systemCalls[c.nr]
	if !ok {
		return fmt.Sprintf("system call %d, number %d", c.at, c.nr)
	}
	return fmt.Sprintf("system call %d, %s on %q", c.at, known.name, c.object())
}
