package conflist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"

	"weft/cniplugin"
	"weft/internal/config"
	"weft/internal/warning"
)

// networkExtensions are those of the files that runtimes read networks from (go-cni, ocicni).
var networkExtensions = []string{".conf", ".conflist", ".json"}

// Warnings says which files of the runtime's folder keep it from taking weft's: it
// takes the first by name. containerd takes none at all while one before it is wrong, which
// CRI-O skips.
func Warnings(c config.CNI) []warning.Warning {
	files, err := libcni.ConfFiles(c.ConfDir, networkExtensions)
	if err != nil {
		return []warning.Warning{{Code: "cni_network", Text: fmt.Sprintf("weftd can't list %s, where the container runtime looks for networks: %v", c.ConfDir, err)}}
	}
	slices.Sort(files)
	var all []warning.Warning
	for _, file := range files {
		if filepath.Base(file) >= config.ConflistName {
			break
		}
		network, err := readNetwork(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // removed since
		case err != nil:
			all = append(all, warning.Warning{Code: "cni_network", Text: fmt.Sprintf("the container runtime reads %s before %s and can't use it (%v), so it may fail to add pods; remove %s",
				file, config.ConflistName, err, file)})
			continue
		case leadsTo(network.Bytes, c):
			return all
		}
		return append(all, warning.Warning{Code: "cni_network", Text: fmt.Sprintf("the container runtime uses %s (network %s) and not %s, so new pods are not on weft's network; remove %s",
			file, network.Name, config.ConflistName, file)})
	}
	return all
}

// readNetwork reads a file as a runtime does.
func readNetwork(file string) (*libcni.NetworkConfigList, error) {
	if filepath.Ext(file) == ".conflist" {
		return libcni.NetworkConfFromFile(file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	plugin, err := libcni.NetworkPluginConfFromBytes(content)
	if err != nil {
		return nil, err
	}
	return &libcni.NetworkConfigList{Name: plugin.Network.Name, Bytes: content}, nil
}

// leadsTo reports whether a network has weft's plugin called: a plugin such as Multus calls
// the plugins of another network, which it names by the network, by its file, or by
// repeating it.
func leadsTo(network []byte, c config.CNI) bool {
	var document any
	if json.Unmarshal(network, &document) != nil {
		return false
	}
	return names(document, "", func(key, text string) bool {
		return key == "type" && text == cniplugin.Type ||
			key == "clusterNetwork" && (text == c.Name || strings.HasSuffix(text, "/"+config.ConflistName))
	})
}

// names reports whether is holds for a string in a document, with the key that it has.
func names(document any, key string, is func(key, text string) bool) bool {
	switch v := document.(type) {
	case string:
		return is(key, v)
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return names(item, key, is) })
	case map[string]any:
		for key, value := range v {
			if names(value, key, is) {
				return true
			}
		}
	}
	return false
}
