package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// manifest is what stands before the keys, with its length in 4 bytes before it.
type manifest struct {
	Version int    `json:"version"`
	Ticket  string `json:"ticket"`

	// Namespace is the network namespace of the device and the sockets, as in a request. systemd may start
	// the next process in another one.
	Namespace string `json:"namespace"`

	State
}

const (
	lengthLen = 4

	// maxManifest has room for four times 5,000 peers that all roam between IPv6 addresses and have a
	// narrow path that loses runs: 184 bytes in Roams, and with a name of 253 letters 262 in Narrow and 261
	// in RunsLost.
	maxManifest = 16 << 20

	// maxMemory is far more than 5,000 peers need that talk in 16 lanes.
	maxMemory = 1 << 30

	seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
)

// write returns memory that no process can change, with all of s but the descriptors. It belongs to
// no file system, and the kernel frees it with its last descriptor (memfd_create(2)).
func write(s *State, ticket string) (_ *os.File, err error) {
	namespace, err := networkNamespace()
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(manifest{version, ticket, namespace, *s})
	if err != nil {
		return nil, fmt.Errorf("describe what is handed over: %w", err)
	}
	const name, flags = "weft-handover", unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory for keys (memfd_create): %w", err)
	}
	memory := os.NewFile(uintptr(fd), name)
	_, headErr := memory.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head...))
	_, keysErr := memory.Write(s.Keys)
	if _, err = unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		err = fmt.Errorf("seal memory for keys: %w", err)
	}
	if err := errors.Join(headErr, keysErr, err); err != nil {
		memory.Close()
		return nil, err
	}
	return memory, nil
}

// read returns what write has written.
func read(memory *os.File) (*State, string, error) {
	if got, err := unix.FcntlInt(memory.Fd(), unix.F_GET_SEALS, 0); err != nil || got&seals != seals {
		return nil, "", fmt.Errorf("what was handed over is not sealed memory (seals %#x, %w)", got, err)
	}
	info, err := memory.Stat()
	if err != nil {
		return nil, "", fmt.Errorf("look at the memory that was handed over: %w", err)
	}
	if info.Size() < lengthLen || info.Size() > maxMemory {
		return nil, "", fmt.Errorf("the memory that was handed over has %d bytes", info.Size())
	}
	all := make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(memory, 0, info.Size()), all); err != nil {
		return nil, "", fmt.Errorf("read the memory that was handed over: %w", err)
	}
	size := uint64(binary.BigEndian.Uint32(all))
	if size > maxManifest || size > uint64(len(all)-lengthLen) {
		return nil, "", fmt.Errorf("the memory that was handed over begins with %d bytes of %d", size, len(all))
	}
	var head manifest
	if err := json.Unmarshal(all[lengthLen:lengthLen+size], &head); err != nil {
		clear(all)
		return nil, "", fmt.Errorf("parse what was handed over: %w", err)
	}
	s := &head.State
	s.Keys = all[lengthLen+size:]
	if head.Version != version {
		return s, "", versionError(head.Version)
	}
	switch here, err := networkNamespace(); {
	case err != nil:
		return s, "", err
	case head.Namespace != here:
		return s, "", errors.New("it was handed over in another network namespace")
	}
	return s, head.Ticket, nil
}

func versionError(theirs int) error {
	return fmt.Errorf("it is handed over in version %d, and this weftd knows version %d", theirs, version)
}
