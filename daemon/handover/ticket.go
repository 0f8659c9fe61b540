package handover

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ticketPrefix is what the name of a ticket begins with, in the run directory.
const ticketPrefix = "handover-"

// ErrClaimed says that what was handed over is another process's, or of no use any more.
var ErrClaimed = errors.New("what was handed over was claimed already, or is from before a crash")

// issue makes a new ticket. From now on the process that removes it owns the state that names it.
func issue(runDir, ticket string) error {
	f, err := os.OpenFile(filepath.Join(runDir, ticketPrefix+ticket), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the ticket of the hand-over: %w", err)
	}
	return f.Close()
}

func newTicket() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // which never fails
	return hex.EncodeToString(b[:])
}

// claim removes a ticket, or returns ErrClaimed.
func claim(runDir, ticket string) error {
	if b, err := hex.DecodeString(ticket); err != nil || len(b) != 16 { // it becomes a path
		return fmt.Errorf("the hand-over has a ticket that is none: %w", ErrClaimed)
	}
	err := os.Remove(filepath.Join(runDir, ticketPrefix+ticket))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrClaimed
	}
	if err != nil {
		return fmt.Errorf("claim what was handed over: %w", err)
	}
	return nil
}

// Forget removes all tickets: what they stand for is never used. Only the process that holds the run
// directory's lock may call it.
func Forget(runDir string) error {
	entries, err := os.ReadDir(runDir)
	if err != nil {
		return fmt.Errorf("look for tickets of earlier hand-overs: %w", err)
	}
	var errs error
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ticketPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(runDir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, fmt.Errorf("remove the ticket of an earlier hand-over: %w", err))
		}
	}
	return errs
}
