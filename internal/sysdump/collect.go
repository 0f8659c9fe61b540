package sysdump

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"weft/control/snapshot"
	"weft/internal/config"
	"weft/internal/doctor"
	"weft/internal/marks"
	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/ipam"
)

// collection returns the files to collect.
func collection(ctx context.Context, in doctor.Input) []item {
	// Without a configuration weft's folders are where they are by default.
	c := in.Config
	if in.ConfigErr != nil {
		c.RunDir, c.StateDir, c.CNI.ConfDir = filepath.Dir(in.Socket), "/var/lib/weft", "/etc/cni/net.d"
	}
	return slices.Concat(weftd(ctx, in, c), files(in, c), network(c), filters(), host(in))
}

// weftd is what doctor finds, and what the running weftd reports.
func weftd(ctx context.Context, in doctor.Input, c config.Config) []item {
	items := []item{{"doctor.json", func(ctx context.Context) ([]byte, error) { return json.MarshalIndent(doctor.Run(ctx, in), "", "  ") }}}
	names, err := status.Documents(ctx, in.Socket)
	if err != nil { // no weftd, or an older one
		names = []string{"status"}
	}
	for _, name := range names {
		items = append(items, item{"weftd/" + fileName(name) + ".json", func(ctx context.Context) ([]byte, error) {
			document, err := status.Document(ctx, in.Socket, name)
			if err != nil {
				return nil, err
			}
			var text bytes.Buffer
			err = json.Indent(&text, document, "", "  ")
			return text.Bytes(), err
		}})
	}
	if c.Metrics.Listen.IsValid() {
		for _, path := range []string{"metrics", "healthz", "readyz"} {
			items = append(items, item{"weftd/" + path + ".txt", func(ctx context.Context) ([]byte, error) {
				return get(ctx, "http://"+c.Metrics.Listen.String()+"/"+path)
			}})
		}
	}
	return append(items, item{"weftd/process.txt", func(context.Context) ([]byte, error) { return process(in.Socket) }},
		command("weftd/journal.txt", "journalctl", "--unit=weftd", "--since=-2d", "--lines=50000", "--no-pager", "--output=short-iso-precise"))
}

// process is what the kernel says of weftd.
func process(socket string) ([]byte, error) {
	pid, err := status.Server(socket)
	if err == nil && pid == 0 {
		err = errors.New("weftd runs in another container; run weft sysdump in that one (kubectl exec)")
	}
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	var errs []error
	for _, name := range []string{"cmdline", "status", "limits", "cgroup", "schedstat"} {
		content, err := read(fmt.Sprintf("/proc/%d/%s", pid, name))
		errs = append(errs, err)
		fmt.Fprintf(&text, "==> %s\n%s\n", name, bytes.ReplaceAll(content, []byte{0}, []byte(" ")))
	}
	return text.Bytes(), errors.Join(errs...)
}

// files are weft's, and those of other networks beside weft's.
func files(in doctor.Input, c config.Config) []item {
	items := []item{structured("config/weft.yaml", in.ConfigPath)}
	if in.ConfigErr != nil {
		items = append(items, item{"config/error.txt", func(context.Context) ([]byte, error) { return []byte(in.ConfigErr.Error() + "\n"), nil }})
	} else {
		items = append(items, item{"config/effective.json", func(context.Context) ([]byte, error) {
			text, err := json.Marshal(c)
			if err != nil {
				return nil, err
			}
			return withoutSecrets(text)
		}})
	}
	if c.Control.Source == config.SourceFile {
		items = append(items, plain("config/nodes.yaml", c.Control.File)) // which holds no secrets
	}
	for _, name := range []string{nodefile.Name, nodefile.ForwardingName, nodefile.ProvenName} {
		items = append(items, plain("run/"+name, filepath.Join(c.RunDir, name)))
	}
	items = append(items, plain("state/"+snapshot.Name, filepath.Join(c.StateDir, snapshot.Name)))
	leases, _ := filepath.Glob(filepath.Join(c.StateDir, ipam.DirName, "*.json*"))
	for _, path := range leases {
		items = append(items, plain("state/ipam/"+fileName(filepath.Base(path)), path))
	}
	for _, pattern := range []string{"*.conf", "*.conflist", "*.json"} {
		networks, _ := filepath.Glob(filepath.Join(c.CNI.ConfDir, pattern))
		for _, path := range networks {
			items = append(items, structured("cni/"+fileName(filepath.Base(path)), path))
		}
	}
	return append(items, command("cni/folders.txt", "ls", "-laL", c.CNI.ConfDir, c.CNI.BinDir, c.RunDir, c.StateDir))
}

// network is what the kernel has of links, addresses, routes and rules, and what it counts.
func network(c config.Config) []item {
	items := []item{
		command("network/links.txt", "ip", "-details", "-statistics", "link", "show"),
		command("network/addresses.txt", "ip", "address", "show"),
		command("network/routes4.txt", "ip", "-details", "-4", "route", "show", "table", "all"),
		command("network/routes6.txt", "ip", "-details", "-6", "route", "show", "table", "all"),
		command("network/rules4.txt", "ip", "-details", "-4", "rule", "show"),
		command("network/rules6.txt", "ip", "-details", "-6", "rule", "show"),
		command("network/neighbours.txt", "ip", "-statistics", "neighbour", "show"),
		command("network/sockets.txt", "ss", "--udp", "--listening", "--numeric", "--processes", "--memory"),
		command("network/qdiscs.txt", "tc", "-statistics", "qdisc", "show"),
		{"network/sysctls.txt", func(context.Context) ([]byte, error) { return sysctls() }},
	}
	links := []string{c.TUN.Name}
	cards, _ := filepath.Glob("/sys/class/net/*/device")
	for _, path := range cards {
		links = append(links, filepath.Base(filepath.Dir(path)))
	}
	for _, link := range links {
		if link != "" { // the TUN device's name may not be known
			items = append(items, command("network/offloads-"+fileName(link)+".txt", "ethtool", "--show-features", link),
				command("network/driver-"+fileName(link)+".txt", "ethtool", "--driver", link))
		}
	}
	for _, name := range []string{"dev", "udp", "udp6", "snmp", "snmp6", "netstat", "softnet_stat", "sockstat", "sockstat6", "stat/nf_conntrack"} {
		items = append(items, plain("network/proc/"+fileName(name), "/proc/thread-self/net/"+name))
	}
	return items
}

// filters are the packet filters, weft's and those of other programs.
func filters() []item {
	items := []item{
		command("filters/weft.txt", "nft", "--handle", "list", "table", "inet", marks.Table),
		command("filters/bridge-weft.txt", "nft", "--handle", "list", "table", "bridge", marks.Table),
		command("filters/ruleset.txt", "nft", "--stateless", "list", "ruleset"),
		command("filters/iptables.txt", "iptables-nft-save", "-c"),
		command("filters/ip6tables.txt", "ip6tables-nft-save", "-c"),
	}
	// To ask the legacy programs for tables would make them.
	for _, family := range []string{"ip", "ip6"} {
		if names, err := read("/proc/thread-self/net/" + family + "_tables_names"); err == nil && len(names) > 0 {
			items = append(items, command("filters/"+family+"tables-legacy.txt", family+"tables-legacy-save", "-c"))
		}
	}
	return items
}

// host is the kernel, the distribution, the disks, and the unit.
func host(in doctor.Input) []item {
	items := []item{command("host/kernel.txt", "uname", "-a"), command("host/disks.txt", "df", "-h"), command("host/inodes.txt", "df", "-i"),
		command("host/unit.txt", "systemctl", "show", "weftd.service"), command("host/unit-files.txt", "systemctl", "cat", "weftd.service"),
		command("host/clock.txt", "timedatectl"), plain("host/os-release.txt", filepath.Join(in.Root, "etc/os-release"))}
	for _, name := range []string{"modules", "meminfo", "loadavg", "uptime", "stat", "cpuinfo", "interrupts", "pressure/cpu"} {
		items = append(items, plain("host/proc/"+fileName(name), "/proc/"+name))
	}
	return items
}

// kept are the sysctls that matter to weft; no key of the kernel's is among them.
var kept = []string{"net/ipv4/ip_forward", "net/ipv4/conf/*/rp_filter", "net/ipv4/conf/*/forwarding", "net/ipv4/conf/*/arp_*", "net/ipv4/conf/*/send_redirects", "net/ipv4/ip_local_*",
	"net/ipv6/conf/*/forwarding", "net/ipv6/conf/*/accept_ra", "net/ipv6/conf/*/disable_ipv6", "net/ipv6/conf/*/addr_gen_mode", "net/ipv4/fib_*", "net/ipv6/fib_*", "net/ipv4/udp_*", "net/ipv4/tcp_mtu_probing",
	"net/ipv4/tcp_congestion_control", "net/core/[rw]mem_*", "net/core/netdev_*", "net/core/default_qdisc", "net/core/busy_*", "net/bridge/*", "net/netfilter/nf_conntrack_*", "kernel/osrelease", "vm/overcommit_memory"}

func sysctls() ([]byte, error) {
	var text bytes.Buffer
	for _, pattern := range kept {
		paths, _ := filepath.Glob("/proc/sys/" + pattern)
		for _, path := range paths {
			if value, err := read(path); err == nil {
				fmt.Fprintf(&text, "%s = %s\n", strings.TrimPrefix(path, "/proc/sys/"), bytes.TrimSpace(value))
			}
		}
	}
	return text.Bytes(), nil
}

// command is what a program prints.
func command(name, program string, args ...string) item {
	return item{name, func(ctx context.Context) ([]byte, error) {
		path, err := exec.LookPath(program)
		if err != nil {
			return nil, fmt.Errorf("%s is not installed", program)
		}
		var stdout, stderr limited
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return stdout.Bytes(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
		}
		return stdout.Bytes(), nil
	}}
}

// limited keeps a byte more than a file may have, and lets the program go on.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := mostBytes + 1 - l.Len(); room > 0 {
		_, _ = l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// plain is a file of the host's as it is.
func plain(name, path string) item {
	return item{name, func(context.Context) ([]byte, error) { return read(path) }}
}

// structured is a file in YAML or JSON that may hold secrets.
func structured(name, path string) item {
	return item{name, func(context.Context) ([]byte, error) {
		text, err := read(path)
		if err != nil {
			return nil, err
		}
		return withoutSecrets(text)
	}}
}

// read returns a file, of a large one a byte more than a file may have. Another kind than a regular
// file could keep it waiting.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, mostBytes+1))
}

// get returns what a local HTTP server answers, whatever the status.
func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request) // without a proxy
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, mostBytes))
	if path.Base(url) != "metrics" { // an answer of which the status is the point
		text = append([]byte(response.Status+"\n"), text...)
	}
	return text, err
}

// unsafe is what the name of a file in an archive doesn't have.
var unsafe = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// fileName returns a name without folders.
func fileName(name string) string {
	name = strings.TrimLeft(unsafe.ReplaceAllString(name, "_"), ".")
	if name == "" {
		return "host"
	}
	return name
}
