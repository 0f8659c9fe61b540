package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// stateVersion is the version of the file's layout.
const stateVersion = 2

// state is the content of a lease file.
type state struct {
	Version int `json:"version"`

	// Checksum is the SHA-256 of the same file with zeros in its place. It stands at
	// checksumAt, so that no other writing of the same JSON is taken for the file.
	Checksum string `json:"checksum"`

	// Leases are in the order in which they were acquired.
	Leases []Lease `json:"leases"`

	// Cursors are the addresses last given out of each range: the next search starts
	// behind them.
	Cursors map[netip.Prefix]netip.Addr `json:"cursors"`

	// CoolingDown are the free addresses that were released recently, the last one at the end.
	CoolingDown []coolingAddr `json:"resting"`

	// others is the node's other networks, which take addresses from the same pod CIDRs. It is in
	// no file, and nil unless addresses are taken or counted.
	others []*state
}

const (
	head       = "{\n  \"version\": 2,\n  \"checksum\": \"sha256:"
	checksumAt = len(head)
	unsigned   = "0000000000000000000000000000000000000000000000000000000000000000"
)

func newState() *state {
	return &state{
		Version:     stateVersion,
		Leases:      []Lease{},
		Cursors:     map[netip.Prefix]netip.Addr{},
		CoolingDown: []coolingAddr{},
	}
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
		return nil, fmt.Errorf("%s: %w: %w; refusing to give out addresses that pods may hold: weftd, or `weft ipam gc`, rebuilds "+
			"the file from the running pods; if the files of several networks are damaged, drain this node, remove the files, and uncordon the node", path, ErrCorrupt, err)
	}
	return st, nil
}

// decode parses what encode wrote, to the last bit. Anything else is an error.
func decode(data []byte) (*state, error) {
	st := newState()
	if err := json.Unmarshal(data, st); err != nil {
		return nil, err
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("it has version %d, this weft reads version %d", st.Version, stateVersion)
	}
	if len(data) < checksumAt+len(unsigned) || string(data[checksumAt:checksumAt+len(unsigned)]) != checksum(data) {
		return nil, errors.New("its checksum does not match its content")
	}
	return st, st.validate()
}

// checksum returns, in hexadecimal, the SHA-256 of a file with zeros at checksumAt.
func checksum(file []byte) string {
	hash := sha256.New()
	hash.Write(file[:checksumAt])
	hash.Write([]byte(unsigned))
	hash.Write(file[checksumAt+len(unsigned):])
	return hex.EncodeToString(hash.Sum(nil))
}

// validate checks what a right checksum does not show: that no field is missing, and that
// no two leases contradict each other.
func (st *state) validate() error {
	if st.Leases == nil || st.Cursors == nil || st.CoolingDown == nil {
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

// encode returns the file's bytes.
func encode(st *state) ([]byte, error) {
	st.Checksum = "sha256:" + unsigned
	data, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode leases: %w", err)
	}
	data = append(data, '\n')
	copy(data[checksumAt:], checksum(data))
	return data, nil
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
		// The next writer overwrites a file that stays nevertheless.
		_ = os.Remove(temporary)
		return err
	}
	// Opened before: a failure must come while the old leases hold.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return dir.Sync() // or the rename itself could be lost
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
