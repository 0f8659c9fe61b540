package architecture

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weft/internal/config"
	"weft/internal/hostcheck"
	"weft/internal/manual"
)

// ini reads a file of systemd's format: sections, and the values of each key in order.
func ini(t *testing.T, path string) map[string]map[string][]string {
	t.Helper()
	sections, section := map[string]map[string][]string{}, ""
	for line := range strings.Lines(read(t, path)) {
		line = strings.TrimSpace(line)
		switch key, value, assigned := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[' && line[len(line)-1] == ']':
			section = line[1 : len(line)-1]
			sections[section] = map[string][]string{}
		case assigned && section != "":
			sections[section][key] = append(sections[section][key], value)
		default:
			t.Errorf("%s: %q is neither a section nor KEY=VALUE", path, line)
		}
	}
	return sections
}

// TestUnitsAreValid has systemd check the unit with each drop-in.
func TestUnitsAreValid(t *testing.T) {
	dropIns, err := filepath.Glob("../../deploy/systemd/weftd.service.d/*.conf")
	if err != nil || len(dropIns) == 0 {
		t.Fatal("there are no drop-ins:", err)
	}
	for _, dropIn := range append(dropIns, "") {
		dir := t.TempDir()
		unit := strings.ReplaceAll(read(t, "deploy/systemd/weftd.service"), "ExecStart=weftd ", "ExecStart=/bin/true ")
		write := func(path, text string) {
			t.Helper()
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		write(filepath.Join(dir, "weftd.service"), unit)
		if dropIn != "" {
			write(filepath.Join(dir, "weftd.service.d", filepath.Base(dropIn)), read(t, strings.TrimPrefix(dropIn, "../../")))
		}
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", filepath.Join(dir, "weftd.service")).CombinedOutput()
		if err != nil || strings.Contains(string(out), dir) {
			t.Errorf("with %q: %v\n%s", dropIn, err, out)
		}
	}
}

// TestTheUnitIsHardened has systemd rate what the unit lets weftd do: 0 is nothing, 10 all.
func TestTheUnitIsHardened(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", "../../deploy/systemd/weftd.service").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTheUnitFitsTheDefaults compares the unit with what weftd reads and writes by default.
func TestTheUnitFitsTheDefaults(t *testing.T) {
	service := ini(t, "deploy/systemd/weftd.service")["Service"]
	folders := strings.Fields(strings.Join(service["ConfigurationDirectory"], " "))
	for _, folder := range []string{filepath.Dir(config.DefaultPath), "/etc/cni/net.d"} {
		if !slices.Contains(folders, strings.TrimPrefix(folder, "/etc/")) {
			t.Errorf("the unit does not make %s, without which it fails where ProtectSystem is strict", folder)
		}
	}
	for _, key := range []string{"CPUWeight", "Nice"} {
		if service[key] == nil {
			t.Errorf("the unit has no %s", key)
		}
	}
	before := strings.Fields(strings.Join(ini(t, "deploy/systemd/weftd.service")["Unit"]["Before"], " "))
	for _, unit := range []string{"containerd.service", "crio.service", "kubelet.service", "k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service"} {
		if !slices.Contains(before, unit) {
			t.Errorf("the unit does not start before %s", unit)
		}
	}
	if match := ini(t, "deploy/systemd/networkd-00-weft.network")["Match"]["Name"]; !slices.Equal(match, []string{hostcheck.PodLinks + "*"}) {
		t.Errorf("systemd-networkd leaves %v alone", match)
	}
	if section := ini(t, "deploy/systemd/networkd-80-weft.conf")["Network"]; section["ManageForeignRoutes"] == nil {
		t.Errorf("systemd-networkd's drop-in has %v", section)
	}
	if devices := ini(t, "deploy/NetworkManager/90-weft.conf")["keyfile"]["unmanaged-devices+"]; !slices.Equal(devices, []string{"interface-name:" + hostcheck.PodLinks + "*"}) {
		t.Errorf("NetworkManager leaves %v alone", devices)
	}
	for _, port := range []string{"9338", "9339", "51104-51135"} {
		if !regexp.MustCompile(`(?m)^net\.ipv4\.ip_local_reserved_ports = .*\b` + port + `\b`).MatchString(read(t, "deploy/sysctl/90-weft.conf")) {
			t.Errorf("the port %s is not reserved", port)
		}
	}
}

func TestFirewalldsFilesAreXML(t *testing.T) {
	files, err := filepath.Glob("../../deploy/firewalld/*.xml")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		decoder := xml.NewDecoder(strings.NewReader(read(t, strings.TrimPrefix(file, "../../"))))
		for {
			_, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s: %v", file, err)
				break
			}
		}
	}
}

// mentions says whether a text has a file's name, or the path of a folder that it is in: deploy/x/y at least.
func mentions(text, path string) bool {
	if strings.Contains(text, filepath.Base(path)) {
		return true
	}
	for dir := filepath.Dir(path); strings.Count(dir, "/") >= 2; dir = filepath.Dir(dir) {
		if strings.Contains(text, dir) {
			return true
		}
	}
	return false
}

// TestEveryFileThatTheDocsNameExists: what stands in deploy/, and what the docs take from there.
func TestEveryFileThatTheDocsNameExists(t *testing.T) {
	var all strings.Builder
	for _, page := range manual.All(t) {
		text := read(t, page)
		all.WriteString(text)
		for _, path := range regexp.MustCompile(`\bdeploy/[A-Za-z0-9_./-]*[A-Za-z0-9_/]`).FindAllString(text, -1) {
			if _, err := os.Stat(filepath.Join("../..", path)); err != nil {
				t.Errorf("%s names %s, which does not exist", page, path)
			}
		}
	}
	err := filepath.WalkDir("../../deploy", func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !mentions(all.String(), strings.TrimPrefix(path, "../../")) {
			t.Errorf("no doc mentions %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
