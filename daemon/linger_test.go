package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/daemon/handover"
	"weft/internal/alone"
	"weft/internal/config"
	"weft/internal/status"
)

// TestLingeringIsBounded: a lingering weftd that is not ended starts again, because the DaemonSet's update
// is stuck. If it was not ready before, it does not report ready while it lingers.
func TestLingeringIsBounded(t *testing.T) {
	dir := t.TempDir()
	lock, err := alone.Lock(dir) // as the next weftd has it
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	limit, interval := lingerLimit, lingerInterval
	defer func() { lingerLimit, lingerInterval = limit, interval }()
	lingerLimit, lingerInterval = time.Second, 10*time.Millisecond
	listener, err := handover.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var said bytes.Buffer
	d := newDaemon(config.Config{RunDir: dir, StateDir: dir}, slog.New(slog.NewTextHandler(&said, nil)), nil)
	asked := make(chan error, 1)
	go func() {
		_, _, err := handover.Ask(dir, handover.Spec{})
		asked <- err
	}()
	if d.successor, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := d.linger(t.Context()); !errors.Is(err, ErrTakeBack) || !strings.Contains(said.String(), "data path taken back") {
		t.Errorf("it returns %v, and logs %s", err, said.String())
	}
	if _, err := os.Stat(filepath.Join(dir, status.LingerName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it would be ready: %v", err)
	}
	if err := <-asked; !errors.Is(err, handover.ErrNobody) {
		t.Errorf("the next one is not told: %v", err)
	}
}
