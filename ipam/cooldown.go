package ipam

import (
	"cmp"
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

// coolingAddr is an address that was released.
type coolingAddr struct {
	Address netip.Addr `json:"address"`

	// Boot and UptimeMS are when that was.
	Boot     string `json:"boot"`
	UptimeMS int64  `json:"uptimeMilliseconds"`
}

// left is how much longer the address cools down. After a reboot it counts as released at
// the boot, because the time that the machine was off is unknown.
func (r coolingAddr) left(at moment, cooldown time.Duration) time.Duration {
	if cooldown == 0 {
		return 0
	}
	released := time.Duration(r.UptimeMS) * time.Millisecond
	if r.Boot != at.boot {
		released = 0
	}
	return max(0, released+cooldown-at.uptime)
}

// startCooldown has addresses cool down from now on.
func (st *state) startCooldown(addresses []netip.Addr, at moment) {
	for _, addr := range addresses {
		st.endCooldown(addr)
		// Rounded up, so that no cooldown is too short.
		st.CoolingDown = append(st.CoolingDown, coolingAddr{addr, at.boot, at.uptime.Milliseconds() + 1})
	}
}

// endCooldowns forgets the addresses that have cooled down.
func (st *state) endCooldowns(at moment, cooldown time.Duration) {
	st.CoolingDown = slices.DeleteFunc(st.CoolingDown, func(r coolingAddr) bool { return r.left(at, cooldown) == 0 })
}

// cooling returns the addresses that cool down in any network and are not leased, the one first
// that has cooled down for the longest time.
func (st *state) cooling(at moment, cooldown time.Duration) []coolingAddr {
	longest := map[netip.Addr]time.Duration{} // left; 0: leased, or cooled down
	all := slices.Clone(st.CoolingDown)
	for _, other := range st.others {
		all = append(all, other.CoolingDown...)
	}
	for _, r := range all { // several networks may have leased it, one after the other
		longest[r.Address] = max(longest[r.Address], r.left(at, cooldown))
	}
	for l := range st.leased() {
		for _, addr := range l.Addresses {
			longest[addr] = 0
		}
	}
	all = slices.DeleteFunc(all, func(r coolingAddr) bool {
		left := longest[r.Address]
		return left == 0 || r.left(at, cooldown) < left
	})
	slices.SortStableFunc(all, func(a, b coolingAddr) int { return cmp.Compare(a.left(at, cooldown), b.left(at, cooldown)) })
	return all
}

func (st *state) endCooldown(addr netip.Addr) {
	st.CoolingDown = slices.DeleteFunc(st.CoolingDown, func(r coolingAddr) bool { return r.Address == addr })
}
