package nodefile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestForwardedCountsUptime(t *testing.T) {
	dir := t.TempDir()
	now := 100 * time.Second
	before := uptime
	uptime = func() (time.Duration, error) { return now, nil }
	t.Cleanup(func() { uptime = before })

	if _, err := Forwarded(dir); !errors.Is(err, ErrAbsent) {
		t.Errorf("never: %v", err)
	}
	if err := Forwards(dir); err != nil {
		t.Fatal(err)
	}
	now += 31 * time.Second
	if ago, err := Forwarded(dir); err != nil || ago != 31*time.Second {
		t.Errorf("after 31 s: %v, %v", ago, err)
	}
	if err := Forwards(dir); err != nil {
		t.Fatal(err)
	}
	if ago, err := Forwarded(dir); err != nil || ago != 0 {
		t.Errorf("again: %v, %v", ago, err)
	}
	now = 10 * time.Second
	if _, err := Forwarded(dir); !errors.Is(err, ErrAbsent) {
		t.Errorf("of an earlier boot: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ForwardingName), []byte("soon\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Forwarded(dir); err == nil || errors.Is(err, ErrAbsent) {
		t.Errorf("garbage: %v", err)
	}
	if err := Forwards(filepath.Join(dir, "absent")); err == nil {
		t.Error("recorded in a folder that does not exist")
	}
}
