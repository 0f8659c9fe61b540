// Package architecture keeps the arrows between packages pointing one way.
package architecture

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dependencies lists all packages that a package needs, itself included.
func dependencies(t *testing.T, of string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", of).Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", of, err)
	}
	return strings.Fields(string(out))
}

func TestPackagesKnowOnlyWhatTheirPlaceAllows(t *testing.T) {
	for _, rule := range []struct {
		of     string
		may    []string // of weft's own packages; empty: any
		mayNot []string // import path prefixes
	}{
		{of: "weft/peer", may: []string{"weft/peer"}},
		{of: "weft/packet", may: []string{"weft/packet"}},
		{of: "weft/drop", may: []string{"weft/drop"}},
		{of: "weft/internal/family", may: []string{"weft/internal/family"}},
		{of: "weft/fib", may: []string{"weft/fib", "weft/peer"}},
		{
			of:  "weft/router",
			may: []string{"weft/router", "weft/fib", "weft/packet", "weft/drop", "weft/peer", "weft/encap", "weft/internal/poller"},
			mayNot: []string{"k8s.io", "sigs.k8s.io", "go.etcd.io", "go.yaml.in", "github.com/vishvananda/netlink",
				"github.com/prometheus", "github.com/quic-go", "net/http", "log/slog"},
		},
		{of: "weft/router/tun", may: []string{"weft/router/tun", "weft/packet", "weft/internal/poller"}},
		{of: "weft/encap", may: []string{"weft/encap", "weft/packet", "weft/peer", "weft/internal/poller"}},
		{of: "weft/encap/vxlan", may: []string{"weft/encap/vxlan", "weft/encap", "weft/fib", "weft/packet", "weft/drop", "weft/peer", "weft/internal/poller"}},
		{
			of:     "weft/encap/sealed", // the handshake knows the data path, not the other way round
			may:    []string{"weft/encap/sealed", "weft/encap", "weft/fib", "weft/packet", "weft/drop", "weft/peer", "weft/internal/poller"},
			mayNot: []string{"github.com/quic-go", "crypto/tls", "log/slog"},
		},
		{of: "weft/encap/probe", may: []string{"weft/encap/probe", "weft/drop", "weft/peer"}},
		{of: "weft/daemon/engine", may: []string{"weft/daemon/engine", "weft/control", "weft/peer", "weft/fib", "weft/internal/family", "weft/internal/strict", "weft/internal/warning"}},
		{of: "weft/ipam", may: []string{"weft/ipam", "weft/internal/family"}},
		{
			of:     "weft/cniplugin/wiring", // the kernel, without the leases and the commands that use it
			may:    []string{"weft/cniplugin/wiring", "weft/ipam", "weft/internal/family", "weft/internal/marks", "weft/internal/nftable", "weft/internal/nodefile", "weft/internal/rtnetlink"},
			mayNot: []string{"github.com/containernetworking/cni/pkg/skel", "github.com/containernetworking/cni/pkg/types/100"},
		},
		{
			of: "weft/cniplugin/leases",
			may: []string{"weft/cniplugin/leases", "weft/cniplugin/wiring", "weft/ipam", "weft/internal/family", "weft/internal/marks", "weft/internal/nftable",
				"weft/internal/nodefile", "weft/internal/rtnetlink"},
			mayNot: []string{"github.com/containernetworking/cni/pkg/skel", "github.com/containernetworking/cni/pkg/types/100"},
		},
		{
			of:     "weft/control", // a planner has no sockets
			may:    []string{"weft/control", "weft/peer", "weft/fib", "weft/internal/family", "weft/internal/strict", "weft/internal/warning"},
			mayNot: []string{"net/http", "github.com/vishvananda/netlink", "go.etcd.io", "google.golang.org/grpc"},
		},
		{
			of:     "weft/control/etcd",
			may:    []string{"weft/control/etcd", "weft/control", "weft/peer", "weft/fib", "weft/internal/family", "weft/internal/strict", "weft/internal/warning"},
			mayNot: []string{"k8s.io", "github.com/vishvananda/netlink"},
		},
		{
			of: "weft/control/kubernetes", // a source knows no other one, and not the data path
			may: []string{"weft/control/kubernetes", "weft/control", "weft/peer", "weft/fib", "weft/internal/family",
				"weft/internal/strict", "weft/internal/warning", "weft/internal/version"},
			// They know every kind of object there is, and would double weftd's size.
			mayNot: []string{"k8s.io/client-go/kubernetes", "k8s.io/client-go/applyconfigurations", "k8s.io/client-go/informers", "github.com/google/gnostic-models"},
		},
		{of: "weft/internal/invite", may: []string{"weft/internal/invite", "weft/internal/nodekey", "weft/internal/newfile", "weft/internal/strict", "weft/internal/strict/yamltree", "weft/peer"}},
		{
			of:     "weft/cmd/weft-cni",
			mayNot: []string{"os/exec", "weft/cniplugin/conflist", "k8s.io", "go.etcd.io", "google.golang.org/grpc", "go.uber.org", "github.com/quic-go", "net/http", "github.com/prometheus", "weft/control", "weft/router/tun"},
		},
	} {
		for _, dependency := range dependencies(t, rule.of) {
			own := strings.HasPrefix(dependency, "weft/")
			if own && len(rule.may) > 0 && !slices.Contains(rule.may, dependency) {
				t.Errorf("%s must not know %s", rule.of, dependency)
			}
			for _, prefix := range rule.mayNot {
				if dependency == prefix || strings.HasPrefix(dependency, prefix+"/") {
					t.Errorf("%s must not bring in %s", rule.of, dependency)
				}
			}
		}
	}
}

// TestTheEngineIsPure: the engine asks no other part of weft, and waits for nothing.
func TestTheEngineIsPure(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports " "}}`, "weft/daemon/engine").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	may := []string{"cmp", "errors", "fmt", "log/slog", "net/netip", "slices", "strings", "time", "weft/control", "weft/peer"}
	for imported := range strings.FieldsSeq(string(out)) {
		if !slices.Contains(may, imported) {
			t.Errorf("the engine must not import %s", imported)
		}
	}
	code, err := filepath.Glob("../../daemon/engine/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range code {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if word := regexp.MustCompile(`\btime\.(Now|Since|Until|After|Sleep|New|Tick)|\bslog\.(Info|Warn|Error|Debug|Default)\b|\bgo (func|[a-z])`).FindString(string(text)); word != "" && !strings.HasSuffix(file, "_test.go") {
			t.Errorf("%s has %s", file, word)
		}
	}
}

// unit is what must not import each other in a circle: a top-level folder, or one of internal's.
func unit(pkg string) string {
	path := strings.Split(strings.TrimPrefix(pkg, "weft/"), "/")
	if path[0] == "internal" && len(path) > 1 {
		return path[0] + "/" + path[1]
	}
	return path[0]
}

func TestFoldersImportOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "weft/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	imports := map[string]map[string]bool{}
	for line := range strings.Lines(string(out)) {
		packages := strings.Fields(line)
		from := unit(packages[0])
		if imports[from] == nil {
			imports[from] = map[string]bool{}
		}
		for _, to := range packages[1:] {
			if strings.HasPrefix(to, "weft/") && unit(to) != from {
				imports[from][unit(to)] = true
			}
		}
	}
	for len(imports) > 0 {
		leaf := ""
		for from, all := range imports {
			if len(all) == 0 {
				leaf = from
			}
		}
		if leaf == "" {
			t.Fatalf("these folders import each other in circles, or import such: %v", imports)
		}
		delete(imports, leaf)
		for _, all := range imports {
			delete(all, leaf)
		}
	}
}
