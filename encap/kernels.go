package encap

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// LossyKernel names this host's kernel, alone or with a card's driver, if it is known to lose or
// mangle runs of datagrams without an error; otherwise it returns "".
var LossyKernel = sync.OnceValue(func() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	var drivers []string
	links, _ := filepath.Glob("/sys/class/net/*/device/driver")
	for _, link := range links {
		if driver, err := os.Readlink(link); err == nil {
			drivers = append(drivers, filepath.Base(driver))
		}
	}
	return losesRuns(unix.ByteSliceToString(name.Release[:]), drivers)
})

// losesRuns is LossyKernel for a kernel's release and the drivers of the host's cards.
func losesRuns(release string, drivers []string) string {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(release, "%d.%d.%d", &major, &minor, &patch); n < 2 {
		return ""
	}
	switch {
	case major == 7 && (minor == 0 || minor == 1 && patch <= 4):
		return "Linux " + release
	case major == 6 && minor == 17 && slices.Contains(drivers, "virtio_net"):
		return "Linux " + release + " with virtio_net"
	}
	return ""
}
