package doctor

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// exists says whether the host has a file.
func (h *host) exists(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

// checkUnit asks systemd for weftd's unit.
func checkUnit(ctx context.Context, h *host) []Finding {
	if !h.exists("run/systemd/system") {
		return skipped("systemd does not run here")
	}
	out, err := exec.CommandContext(ctx, "systemctl", "show", "weftd.service", "--property=LoadState,ActiveState,UnitFileState,Result,ExecMainStatus,NRestarts").Output()
	if err != nil {
		return skipped("systemctl does not answer: %v", err)
	}
	return unit(properties(string(out)))
}

// properties parses KEY=VALUE lines.
func properties(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			all[key] = value
		}
	}
	return all
}

func unit(p map[string]string) []Finding {
	switch {
	case p["LoadState"] == "not-found":
		return skipped("there is no unit weftd.service")
	case p["LoadState"] != "loaded":
		return fail("systemd can't load weftd.service ("+p["LoadState"]+")", "systemctl status weftd says why")
	case p["ActiveState"] == "failed" && p["ExecMainStatus"] == "2":
		return fail("weftd.service failed with exit status 2: the configuration or the host must be repaired first", "weftd --check, or the last lines of journalctl -u weftd, say what is wrong; then systemctl start weftd")
	case p["ActiveState"] == "failed":
		return fail(fmt.Sprintf("weftd.service failed (%s, exit status %s)", p["Result"], p["ExecMainStatus"]), "journalctl -u weftd says why; then systemctl start weftd")
	case p["ActiveState"] == "inactive":
		return warn("weftd.service is stopped", "systemctl enable --now weftd")
	case p["UnitFileState"] == "disabled":
		return warn("weftd.service is not started at the next boot", "systemctl enable weftd")
	case p["NRestarts"] != "" && p["NRestarts"] != "0":
		return warn("systemd has restarted weftd "+p["NRestarts"]+" times", "journalctl -u weftd says why it ended")
	}
	return ok("weftd.service is %s and %s", p["ActiveState"], p["UnitFileState"])
}

// checkNetworkd looks whether systemd-networkd removes weft's routes and rules.
func checkNetworkd(_ context.Context, h *host) []Finding {
	if !h.exists("run/systemd/netif/state") {
		return skipped("systemd-networkd does not run here")
	}
	network := h.networkdSettings()
	var removes []string
	for _, key := range []string{"ManageForeignRoutes", "ManageForeignRoutingPolicyRules"} {
		if !slices.Contains([]string{"no", "false", "off", "0"}, strings.ToLower(network[key])) {
			removes = append(removes, key)
		}
	}
	if len(removes) > 0 {
		return warn("systemd-networkd removes routes and rules that it did not make whenever it configures a link ("+strings.Join(removes, ", ")+" is not no)",
			"install deploy/systemd/networkd-80-weft.conf as /etc/systemd/networkd.conf.d/80-weft.conf, and restart systemd-networkd")
	}
	return ok("systemd-networkd leaves weft's routes and rules alone")
}

// networkdSettings returns the section Network of networkd.conf and of its drop-ins, of which
// the last by name counts, and of two with one name that of the first folder (networkd.conf(5)).
func (h *host) networkdSettings() map[string]string {
	folders := []string{"etc", "run", "usr/local/lib", "usr/lib"}
	var files []string
	for _, folder := range folders {
		if main := h.path(folder + "/systemd/networkd.conf"); h.exists(folder + "/systemd/networkd.conf") {
			files = append(files, main)
			break
		}
	}
	dropIns := map[string]string{}
	for _, folder := range folders {
		paths, _ := filepath.Glob(h.path(folder + "/systemd/networkd.conf.d/*.conf"))
		for _, path := range paths {
			if name := filepath.Base(path); dropIns[name] == "" {
				dropIns[name] = path
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dropIns)) {
		files = append(files, dropIns[name])
	}
	settings := map[string]string{}
	for _, file := range files {
		maps.Copy(settings, section(file, "Network"))
	}
	return settings
}

// section returns the assignments in one section of a file of systemd's format.
func section(file, name string) map[string]string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	settings, in := map[string]string{}, false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		switch key, value, assigned := strings.Cut(line, "="); {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			in = line == "["+name+"]"
		case in && assigned:
			settings[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return settings
}

// checkNetworkManager looks whether NetworkManager leaves weft's devices alone.
func checkNetworkManager(_ context.Context, h *host) []Finding {
	if !h.exists("run/NetworkManager") {
		return skipped("NetworkManager does not run here")
	}
	for _, pattern := range []string{"etc/NetworkManager/NetworkManager.conf", "etc/NetworkManager/conf.d/*.conf", "run/NetworkManager/conf.d/*.conf", "usr/lib/NetworkManager/conf.d/*.conf"} {
		files, _ := filepath.Glob(h.path(pattern))
		for _, file := range files {
			for line := range strings.Lines(read(file)) {
				if key, value, _ := strings.Cut(line, "="); strings.TrimSpace(key) == "unmanaged-devices" || strings.TrimSpace(key) == "unmanaged-devices+" {
					if strings.Contains(value, "interface-name:weft") {
						return ok("NetworkManager leaves weft's devices alone (%s)", file)
					}
				}
			}
		}
	}
	return warn("NetworkManager may configure weft's devices", "install deploy/NetworkManager/90-weft.conf as /etc/NetworkManager/conf.d/90-weft.conf, and run nmcli general reload")
}

// read returns a small file, or nothing.
func read(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return string(text)
}
