package e2e

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestImage: containerd imports weft's own container image, and what weftd runs in a container
// works there, in the network namespace of the host.
func TestImage(t *testing.T) {
	begin(t)
	const name = "localhost/weft:e2e"
	archive := filepath.Join(t.TempDir(), "weft.tar")
	made := exec.CommandContext(t.Context(), "make", "--no-print-directory", "-C", "..", "image",
		"IMAGE="+name, "IMAGE_ARCHS="+runtime.GOARCH, "IMAGE_FILE="+archive, "VERSION=1.2.3")
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	ctr := func(args ...string) (string, error) {
		return node1.run(t.Context(), "ctr", append([]string{"--namespace", "k8s.io"}, args...)...)
	}
	if err := node1.ImportImage(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	if out, err := ctr("images", "import", "--snapshotter", "native", "--all-platforms", archive); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	// Each in a container of its own. All of them see the filters of one host.
	for _, test := range []struct {
		run  string
		want string
	}{
		{"weftd --version", "weftd 1.2.3"},
		{"weft --help", "Inspect and operate this node's pod network"},
		{"weft-cni --version", ""},
		{"nft list ruleset", "table inet weft {"},
		{"nft -j list chains", `"table": "weft"`},
		{"nft --check add rule inet weft forward meta l4proto tcp counter", ""},
		{"iptables-nft -A FORWARD -i weft+ -m comment --comment e2e -j ACCEPT", ""},
		{"iptables-nft-save -t filter", "--comment e2e -j ACCEPT"},
		{"iptables-nft -D FORWARD -i weft+ -m comment --comment e2e -j ACCEPT", ""},
		{"ip6tables-nft-save -t filter", ""},
		{"ip6tables-legacy -A FORWARD -p tcp -m multiport --dports 1,2 -j ACCEPT", ""},
		{"ip6tables-legacy-save -t filter", "--dports 1,2 -j ACCEPT"},
		{"ip6tables-legacy -D FORWARD -p tcp -m multiport --dports 1,2 -j ACCEPT", ""},
		{"iptables-legacy-save -t filter", ""},
	} {
		args := []string{
			"run", "--rm", "--snapshotter", "native", "--net-host", "--cgroup", node1.Cgroup() + "/image",
			"--cap-add", "CAP_NET_ADMIN", name, "image",
		}
		out, err := ctr(append(args, strings.Fields(test.run)...)...)
		if err != nil || !strings.Contains(out, test.want) {
			t.Errorf("%s: %v\n%s", test.run, err, out)
		}
	}
}
