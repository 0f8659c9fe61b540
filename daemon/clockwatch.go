package daemon

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/warning"
)

const (
	// leastClockJump is a step that may matter to certificates and tokens, and that no
	// slewing makes while the last one is remembered.
	leastClockJump = time.Minute

	// clockJumpLately is for how long weftd warns of a step.
	clockJumpLately = time.Hour
)

// clockWatch notices when the clock is set. It compares the clock with the time since the boot, which
// also passes while the machine sleeps.
type clockWatch struct {
	ahead   time.Duration // by how much the clock was ahead of that time before it was set
	by      time.Duration // by how much it was set, in all; 0 if it was not
	at      time.Time     // what it shows since then
	noticed time.Duration // since the boot
}

// look returns a warning if the clock was set lately, and not set right again since.
func (w *clockWatch) look(now time.Time, up time.Duration) []warning.Warning {
	ahead := time.Duration(now.UnixNano()) - up
	by := ahead - w.ahead
	if first := w.ahead == 0; first || by.Abs() < leastClockJump || w.by != 0 && up-w.noticed > clockJumpLately {
		*w = clockWatch{ahead: ahead}
		return nil
	}
	if (by - w.by).Abs() >= leastClockJump {
		w.by, w.at, w.noticed = by, now, up
	}
	direction := "forward"
	if w.by < 0 {
		direction = "back"
	}
	return []warning.Warning{{Code: "clock_jump", Text: fmt.Sprintf(
		"the clock of this host was set %s by %s, to %s; pods and peers don't depend on it, but certificates and tokens of the control source do: see that chronyd or systemd-timesyncd runs and reaches its servers",
		direction, w.by.Abs().Round(time.Second), w.at.Format(time.RFC3339))}}
}

// sinceBoot returns the time since the boot, with that in which the machine slept.
func sinceBoot() (time.Duration, error) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return 0, fmt.Errorf("read the time since the boot: %w", err)
	}
	return time.Duration(up.Nano()), nil
}
