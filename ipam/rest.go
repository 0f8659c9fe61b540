package ipam

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// moment is a time that no step of the clock moves: how long the machine has been up,
// and since which of its boots.
type moment struct {
	boot   string
	uptime time.Duration
}

// now reads the boot's identity (random(4)) and the time since then, suspensions
// included (clock_gettime(2)).
func now() (moment, error) {
	const file = "/proc/sys/kernel/random/boot_id"
	id, err := os.ReadFile(file)
	if err != nil {
		return moment{}, err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return moment{}, fmt.Errorf("read the time since boot: %w", err)
	}
	return moment{strings.TrimSpace(string(id)), time.Duration(up.Nano())}, nil
}

// rested is an address that was released.
type rested struct {
	Address netip.Addr `json:"address"`

	// Boot and UptimeMS are when that was.
	Boot     string `json:"boot"`
	UptimeMS int64  `json:"uptimeMilliseconds"`
}

// left is how much longer the address rests. After a reboot nobody knows how long the
// machine was off, so it counts as released at the boot.
func (r rested) left(at moment, rest time.Duration) time.Duration {
	if rest == 0 {
		return 0
	}
	released := time.Duration(r.UptimeMS) * time.Millisecond
	if r.Boot != at.boot {
		released = 0
	}
	return max(0, released+rest-at.uptime)
}

// layToRest has addresses rest from now on.
func (st *state) layToRest(addresses []netip.Addr, at moment) {
	for _, addr := range addresses {
		st.wake(addr)
		// Rounded up: no address shall rest too little.
		st.Resting = append(st.Resting, rested{addr, at.boot, at.uptime.Milliseconds() + 1})
	}
}

// wakeAll forgets the addresses that have rested enough.
func (st *state) wakeAll(at moment, rest time.Duration) {
	st.Resting = slices.DeleteFunc(st.Resting, func(r rested) bool { return r.left(at, rest) == 0 })
}

func (st *state) wake(addr netip.Addr) {
	st.Resting = slices.DeleteFunc(st.Resting, func(r rested) bool { return r.Address == addr })
}
