package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"weft/cniplugin"
	"weft/cniplugin/conflist"
	"weft/cniplugin/leases"
	"weft/cniplugin/wiring"
	"weft/internal/config"
	"weft/ipam"
)

func checkNetworks(_ context.Context, h *host) []Finding {
	return orOK(Failed, conflist.Warnings(h.Config.CNI), "no other network comes before %s in %s", config.ConflistName, h.Config.CNI.ConfDir)
}

// runtimeFiles are where container runtimes say in which folder they look for networks.
var runtimeFiles = []string{"etc/containerd/config.toml", "etc/containerd/conf.d/*.toml", "etc/crio/crio.conf", "etc/crio/crio.conf.d/*.conf",
	"var/lib/rancher/k3s/agent/etc/containerd/config.toml", "var/lib/rancher/rke2/agent/etc/containerd/config.toml"}

// checkConfDir compares cni.confDir with the folders of the container runtimes.
func checkConfDir(_ context.Context, h *host) []Finding {
	ours, read := filepath.Clean(h.Config.CNI.ConfDir), 0
	var others []string
	for _, pattern := range runtimeFiles {
		files, _ := filepath.Glob(h.path(pattern))
		for _, file := range files {
			for _, dir := range confDirs(file) {
				if read++; dir == ours {
					return ok("the container runtime looks for networks in %s (%s)", ours, file)
				}
				others = append(others, fmt.Sprintf("%s (%s)", dir, file))
			}
		}
	}
	if read == 0 {
		return ok("no container runtime is configured to look elsewhere than in %s", ours)
	}
	return warn("the container runtime looks for networks in "+strings.Join(others, ", ")+", and not in cni.confDir, "+ours, "write the runtime's folder under cni.confDir")
}

// confDir is containerd's key, or CRI-O's.
var confDir = regexp.MustCompile(`^\s*(?:conf_dir|network_dir)\s*=\s*["']([^"']+)["']`)

// confDirs returns the folders of networks that a runtime's file names.
func confDirs(file string) (dirs []string) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if match := confDir.FindStringSubmatch(lines.Text()); match != nil {
			dirs = append(dirs, filepath.Clean(match[1]))
		}
	}
	return dirs
}

func checkPlugin(_ context.Context, h *host) []Finding {
	path := filepath.Join(h.Config.CNI.BinDir, cniplugin.Type)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fail("the CNI plugin is missing: "+err.Error(), "copy "+cniplugin.Type+" to "+h.Config.CNI.BinDir+", or write the runtime's folder of plugins under cni.binDir")
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fail("the CNI plugin "+path+" can't be executed", "chmod 755 "+path)
	}
	return ok("%s", path)
}

func checkChain(ctx context.Context, h *host) (found []Finding) {
	for _, u := range conflist.LookForUnusable(ctx, h.Config.CNI) {
		found = append(found, warn(fmt.Sprintf("the CNI plugin %s can't be used, so pods have no %s: %v", u.Plugin, u.Lack, u.Err),
			"install it in "+h.Config.CNI.BinDir+" (Debian has it in the package containernetworking-plugins), or remove it from cni.chain or cni.extra")...)
	}
	if len(found) == 0 {
		return ok("all plugins of cni.chain and cni.extra can be used")
	}
	return found
}

// checkPool looks whether a pod can get addresses.
func checkPool(_ context.Context, h *host) []Finding {
	if !h.began() {
		return skipped("this node's pod CIDRs are not known yet")
	}
	store, err := ipam.Open(h.Config.StateDir, h.Config.CNI.Name)
	if err != nil {
		return of(Failed, err.Error())
	}
	switch err := store.Available(leases.NodePool(h.node)); {
	case errors.Is(err, ipam.ErrExhausted):
		return fail(fmt.Sprintf("no pod can be added: %v", err), "remove pods, or give the node more addresses")
	case err != nil:
		return of(Failed, "the leases can't be read: "+err.Error()+"; weftd rebuilds a damaged lease file; `weft ipam check` lists what is inconsistent")
	}
	held, cooling, err := store.List()
	if err != nil {
		return of(Failed, err.Error())
	}
	return ok("%d leases, %d addresses cool down, others are free", len(held), len(cooling))
}

// checkLeases compares leases with veths.
func checkLeases(_ context.Context, h *host) []Finding {
	stores, err := ipam.OpenAll(h.Config.StateDir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(stores) == 0 {
		return ok("there are no leases")
	}
	if err != nil {
		return of(Failed, err.Error())
	}
	if err := wiring.CheckNamespace(h.Config.RunDir); err != nil {
		return skipped("the guard table does not show that pods are attached here")
	}
	found, err := leases.Survey(stores)
	if err != nil {
		return of(Failed, err.Error())
	}
	troubled := slices.DeleteFunc(slices.Clone(found), func(f leases.Found) bool { return f.Trouble() == "" })
	if len(troubled) > 0 {
		return warn(fmt.Sprintf("%d of %d attachments are inconsistent, the first is %s: %s", len(troubled), len(found), troubled[0].Attachment, troubled[0].Trouble()),
			"weftd repairs what it can within half a minute; `weft ipam check` lists the rest")
	}
	return ok("%d attachments, all with a lease and a veth", len(found))
}
