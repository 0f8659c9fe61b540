package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"weft/ipam"
)

func checkStateDir(_ context.Context, h *host) []Finding {
	return writable(h.Config.StateDir, "stateDir", "pods can't be added or removed")
}

func checkRunDir(_ context.Context, h *host) []Finding {
	return writable(h.Config.RunDir, "runDir", "weftd can't describe this node to weft-cni")
}

// writable looks at one of weftd's folders, which weftd makes if it is not there.
func writable(dir, key, otherwise string) []Finding {
	if err := ipam.CheckDir(dir); err != nil {
		return of(Failed, fmt.Sprintf("%s, because of %s: %v", otherwise, key, err))
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return ok("weftd makes %s (%s) when it starts", dir, key)
	}
	return ok("%s (%s) can be written, and its disk has room", dir, key)
}
