package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"weft/daemon/engine"
	"weft/encap/sealed/handshake"
	"weft/internal/nodefile"
)

func provenFile(runDir string) string { return filepath.Join(runDir, nodefile.ProvenName) }

// readProven returns which further addresses were proven before a restart. It must not forget them:
// connections of pods to them would break, as they left the overlay meanwhile. A reboot does.
func readProven(runDir string) (engine.Proven, error) {
	data, err := os.ReadFile(provenFile(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the proven addresses: %w", err)
	}
	var p engine.Proven
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("parse %s: %w", provenFile(runDir), err)
	}
	return p, nil
}

// restoreProven returns what was proven before a restart. Without keys nothing is, not even what a
// weftd with keys has left.
func (d *daemon) restoreProven() engine.Proven {
	if d.key == nil {
		return nil
	}
	proven, err := readProven(d.config.RunDir)
	if err != nil {
		d.log.Warn("proven addresses not read", "error", err)
	}
	return proven
}

func writeProven(runDir string, p engine.Proven) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the proven addresses: %w", err)
	}
	if err := renameio.WriteFile(provenFile(runDir), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the proven addresses: %w", err)
	}
	return nil
}

// After an address was proven, more may follow: at the start of a large cluster thousands within
// minutes. Each change is a new table and a look at the whole host, so weftd waits 20 times as long
// as the last one took.
const (
	leastProvedWait = time.Second
	mostProvedWait  = time.Minute
)

// proved puts the addresses behind peers that they have proven, whenever that has changed, until
// ctx is done.
func (d *daemon) proved(ctx context.Context, m *handshake.Manager) {
	for wait := leastProvedWait; ; {
		select {
		case <-ctx.Done():
			return
		case <-m.Proved():
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		all, began := m.Proven(), time.Now()
		d.carryOut(ctx, d.decide(func(e *engine.Engine) engine.Decision { return e.Proved(all) }))
		wait = min(max(leastProvedWait, 20*time.Since(began)), mostProvedWait)
		if err := writeProven(d.config.RunDir, all); err != nil {
			d.log.Warn("proven addresses not saved", "error", err)
		}
	}
}
