// Command weft-ipam is weft's leases as an IPAM plugin, for main plugins other than
// weft-cni, which has them built in.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"

	"weft/cniplugin"
	"weft/internal/version"
)

func main() {
	plugin := cniplugin.New(os.Stdout)
	skel.PluginMainFuncs(plugin.IPAMFuncs(), cniplugin.Versions, "CNI plugin weft-ipam "+version.Version)
}
