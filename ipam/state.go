package ipam

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// stateVersion is the version of the file's layout.
const stateVersion = 1

// maxResting bounds how many released addresses are remembered. In a range that is
// larger, an address rests until at least this many others were released after it.
const maxResting = 512

// state is the content of a lease file.
type state struct {
	Version int `json:"version"`

	// Checksum is the SHA-256 of the same file with an empty checksum.
	Checksum string `json:"checksum"`

	// Leases are in the order in which they were acquired.
	Leases []Lease `json:"leases"`

	// Cursors are the addresses last given out of each range: the next search starts
	// behind them.
	Cursors map[netip.Prefix]netip.Addr `json:"cursors"`

	// Resting are the free addresses released last, the one that rested longest first.
	Resting []netip.Addr `json:"resting"`
}

func newState() *state {
	return &state{
		Version: stateVersion,
		Leases:  []Lease{},
		Cursors: map[netip.Prefix]netip.Addr{},
		Resting: []netip.Addr{},
	}
}

func (st *state) find(a Attachment) (Lease, bool) {
	i := slices.IndexFunc(st.Leases, func(l Lease) bool { return l.Attachment == a })
	if i < 0 {
		return Lease{}, false
	}
	return st.Leases[i], true
}

// remove ends the lease of a and lays its addresses to rest.
func (st *state) remove(a Attachment) (Lease, bool) {
	lease, ok := st.find(a)
	if !ok {
		return Lease{}, false
	}
	st.Leases = slices.DeleteFunc(st.Leases, func(l Lease) bool { return l.Attachment == a })
	st.Resting = append(st.Resting, lease.Addresses...)
	if extra := len(st.Resting) - maxResting; extra > 0 {
		st.Resting = st.Resting[extra:]
	}
	return lease, true
}

// readState reads the file at path. A file that does not exist is a network without
// leases; one that can't be verified never is.
func readState(path string) (*state, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newState(), nil
	}
	if err != nil {
		return nil, err
	}
	st, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w; refusing to give out addresses that pods may hold: "+
			"drain this node, remove the file, and let the pods come back", path, ErrCorrupt, err)
	}
	return st, nil
}

// decode parses what encode wrote. Anything else is an error: a valid file is, byte for
// byte, what its own content encodes to.
func decode(data []byte) (*state, error) {
	st := newState()
	if err := json.Unmarshal(data, st); err != nil {
		return nil, err
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("it has version %d, this weft reads version %d", st.Version, stateVersion)
	}
	if err := st.validate(); err != nil {
		return nil, err
	}
	canonical, err := encode(st)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(canonical, data) {
		return nil, errors.New("its checksum does not match its content")
	}
	return st, nil
}

// validate checks what a right checksum does not show: that no field is missing, and that
// no two leases contradict each other.
func (st *state) validate() error {
	if st.Leases == nil || st.Cursors == nil || st.Resting == nil {
		return errors.New("a field is null")
	}
	holders := map[netip.Addr]Attachment{}
	attachments := map[Attachment]bool{}
	for _, l := range st.Leases {
		if attachments[l.Attachment] {
			return fmt.Errorf("%s has two leases", l.Attachment)
		}
		attachments[l.Attachment] = true
		for _, addr := range l.Addresses {
			if other, ok := holders[addr]; ok {
				return fmt.Errorf("%s is held by %s and by %s", addr, other, l.Attachment)
			}
			holders[addr] = l.Attachment
		}
	}
	return nil
}

// encode sets the checksum of st and returns the file's bytes.
func encode(st *state) ([]byte, error) {
	unsigned := *st
	unsigned.Checksum = ""
	data, err := json.MarshalIndent(unsigned, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode leases: %w", err)
	}
	sum := sha256.Sum256(data)
	st.Checksum = "sha256:" + hex.EncodeToString(sum[:])
	data, err = json.MarshalIndent(st, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode leases: %w", err)
	}
	return append(data, '\n'), nil
}

// writeState replaces the file at path, and returns when the new one would survive a
// power loss. The caller holds the lock, so a temporary file that is already there was
// left by a writer that died, and is overwritten.
func writeState(path string, st *state) error {
	data, err := encode(st)
	if err != nil {
		return err
	}
	temporary := path + ".tmp"
	if err := writeSynced(temporary, data); err != nil {
		// What stays behind nevertheless is overwritten by the next writer.
		_ = os.Remove(temporary)
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	// Without this the rename itself could be lost.
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// makeDir makes the folder at path, unless it is there. A folder that a power loss takes
// away takes the files in it along, so it is written to the disk like them.
func makeDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir writes the names in the folder at path to the disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
