package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"weft/daemon/handover"
	"weft/internal/alone"
	"weft/internal/config"
)

// TestLingeringIsBounded: where nobody ends a weftd that lingers, an update of a DaemonSet is stuck, and
// it must end by itself, so that kubelet starts it again.
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
	d.linger(t.Context())
	if !strings.Contains(said.String(), "the next start takes it back") {
		t.Errorf("it logs %s", said.String())
	}
	if err := <-asked; !errors.Is(err, handover.ErrNobody) {
		t.Errorf("the next one is not told: %v", err)
	}
}
