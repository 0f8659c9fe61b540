package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"weft/ipam"
)

func checkStateDir(_ context.Context, h *host) []Finding {
	return writable(h.Config.StateDir, "stateDir", "pods can't be added or removed")
}

func checkRunDir(_ context.Context, h *host) []Finding {
	return writable(h.Config.RunDir, "runDir", "weftd can't describe this node to weft-cni")
}

// writable looks at one of weftd's folders, or at the one in which weftd would make it.
func writable(dir, key, otherwise string) []Finding {
	at := dir
	for at != "/" {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		at = filepath.Dir(at)
	}
	if err := ipam.CheckDir(at); err != nil {
		return of(Failed, fmt.Sprintf("%s, because of %s: %v", otherwise, key, err))
	}
	if at != dir {
		return ok("weftd makes %s (%s) when it starts", dir, key)
	}
	return ok("%s (%s) can be written, and its disk has room", dir, key)
}
