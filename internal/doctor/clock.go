package doctor

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"weft/control/snapshot"
	"weft/internal/nodefile"
)

// checkClock looks whether the clock can be right. Peers don't need that, but TLS with etcd and
// the API server does.
func checkClock(_ context.Context, h *host) []Finding {
	const remedy = "run chronyd or systemd-timesyncd, and see that it reaches its servers"
	var t unix.Timex // no modes: it only reads
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return skipped("the kernel does not say whether the clock is synchronised: %v", err)
	}
	if h.ConfigErr == nil {
		for _, dir := range []string{h.Config.RunDir, h.Config.StateDir} {
			if file, at := newest(dir); time.Until(at) > time.Minute {
				return warn("the clock was set back: it shows "+time.Now().Format(time.RFC3339)+", and "+file+" was written at "+at.Format(time.RFC3339), remedy)
			}
		}
	}
	synchronised := state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
	switch {
	case synchronised:
		return ok("the clock is synchronised")
	case h.ConfigErr == nil && h.registers():
		return warn("the clock is not synchronised; if it is wrong, TLS with the control source fails", remedy)
	}
	return ok("the clock is not synchronised, which weft does not need")
}

// newest returns the file of weftd's in a folder that was written last.
func newest(dir string) (path string, at time.Time) {
	for _, name := range []string{nodefile.Name, nodefile.ForwardingName, nodefile.ProvenName, snapshot.Name} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.ModTime().After(at) {
			path, at = filepath.Join(dir, name), info.ModTime()
		}
	}
	return path, at
}
