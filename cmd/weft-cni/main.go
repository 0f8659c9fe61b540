// Command weft-cni is the CNI plugin that attaches pods to a weft node. A container
// runtime starts it once for each operation; package cniplugin says what they do.
package main

import (
	"os"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"

	"weft/cniplugin"
	"weft/internal/version"
)

func init() {
	// Network namespaces belong to threads: the plugin must stay on the one it began on.
	runtime.LockOSThread()
	// One call does one thing after the other; more threads would only pass it around.
	runtime.GOMAXPROCS(1)
}

func main() {
	// skel would compare the pod's namespace with the node's after the operation, and report
	// a failure to do so when all is done and said. ADD compares them itself, before.
	if err := os.Setenv("CNI_NETNS_OVERRIDE", "TRUE"); err != nil {
		panic(err)
	}
	plugin := cniplugin.New(os.Stdout)
	skel.PluginMainFuncs(plugin.Funcs(), cniplugin.Versions, "CNI plugin weft-cni "+version.Version)
}
