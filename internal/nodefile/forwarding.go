package nodefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// ForwardingName is the name, in the run directory, of the file that says when weftd last
// forwarded: CLOCK_BOOTTIME in whole seconds, so that steps of the clock don't matter and
// a reboot, which empties the run directory, is noticed if the file survives it.
const ForwardingName = "forwarding"

// ForwardingGrace is how long weftd may fail to forward, or be stopped, until STATUS says
// so. A failing STATUS has the node NotReady and its pods evicted, which a restart must not.
const ForwardingGrace = 30 * time.Second

// uptime returns CLOCK_BOOTTIME; tests replace it.
var uptime = func() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the uptime: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

// Forwards records in runDir, which must exist, that weftd forwards now.
func Forwards(runDir string) error {
	now, err := uptime()
	if err != nil {
		return err
	}
	text := strconv.Itoa(int(now/time.Second)) + "\n"
	if err := renameio.WriteFile(filepath.Join(runDir, ForwardingName), []byte(text), 0o644); err != nil {
		return fmt.Errorf("record that weftd forwards: %w", err)
	}
	return nil
}

// Forwarded returns how long ago weftd last recorded in runDir that it forwards. The error
// wraps ErrAbsent if it has not since the node booted.
func Forwarded(runDir string) (ago time.Duration, err error) {
	path := filepath.Join(runDir, ForwardingName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s: %w", path, ErrAbsent)
	}
	if err != nil {
		return 0, fmt.Errorf("read when weftd forwarded: %w", err)
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("parse %s: %w", path, err)
	}
	now, err := uptime()
	if err != nil {
		return 0, err
	}
	if at := time.Duration(seconds) * time.Second; at <= now {
		return now - at, nil
	}
	return 0, fmt.Errorf("%s is of an earlier boot: %w", path, ErrAbsent)
}
