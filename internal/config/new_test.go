package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// newOf is New for a command line.
func newOf(t *testing.T, defaults map[string]string, args ...string) (Config, string, error) {
	t.Helper()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return New(flags, defaults)
}

func TestNewFilesHaveWhatWasWritten(t *testing.T) {
	_, text, err := newOf(t, map[string]string{"clusterCIDRs": "10.1.0.0/16", "control.file": "/a/nodes.yaml"}, "--cluster-cidrs=10.244.0.0/16,fd00:244::/48", "--tun-lanes=2", "--tun-name=null")
	if err != nil {
		t.Fatal(err)
	}
	want := `# the ranges of all pods' addresses; the same on every node
clusterCIDRs: [10.244.0.0/16, "fd00:244::/48"]

control:
  # the list of nodes
  file: /a/nodes.yaml

tun:
  # name of the TUN device
  name: "null"
  # number of lanes, at most 16; 0: one for each CPU, at most 4
  lanes: 2
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

// TestNewFilesMeanWhatFlagsSay: whatever the flags are, weftd reads the same in the file.
func TestNewFilesMeanWhatFlagsSay(t *testing.T) {
	for _, args := range [][]string{
		{"--cluster-cidrs=10.244.0.0/16"},
		{"--cluster-cidrs=10.244.0.0/16", "--node=null", "--key-file=/with space/it's \"a\" key", "--listen=[::]:9338"},
		{"--cluster-cidrs=10.244.0.0/16", "--control-etcd-endpoints=https://192.0.2.1:2379,https://etcd.example:2379", "--control-etcd-username=a: b #c", "--control-etcd-password-file=/p", "--control-etcd-mask-ipv4=26", "--advertise=interface=eth0"},
		{"--cluster-cidrs=10.244.0.0/16", "--control-kubernetes-kubeconfig="},
		{"--cluster-cidrs=10.244.0.0/16", "--cni-chain=", `--cni-extra={"note": "it's: {x}", "table": 100, "type": "sbr"}`, "--metrics-listen=", "--host-mark-mask=0xc0000000", "--ipam-reserved=10.244.1.10,10.244.2.0/28"},
	} {
		want, text, err := newOf(t, nil, args...)
		if err != nil {
			t.Errorf("%v: %v", args, err)
			continue
		}
		path := filepath.Join(t.TempDir(), "weft.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		AddFlags(flags)
		if err := flags.Set(configFlag, path); err != nil {
			t.Fatal(err)
		}
		got, err := Load(flags, nil)
		if err != nil {
			t.Errorf("%v: %v\n%s", args, err, text)
			continue
		}
		if diff := cmp.Diff(want, got, ipTypes); diff != "" {
			t.Errorf("%v: the file means something else (-flags +file):\n%s", args, diff)
		}
	}
}

func TestNewReportsEveryMistake(t *testing.T) {
	_, _, err := newOf(t, nil, "--tun-lanes=99", "--control-etcd-username=a")
	wantError(t, err, `--cluster-cidrs: missing; write the ranges that all pods' addresses come from, such as clusterCIDRs: [10.244.0.0/16]
--control-etcd-username: control.etcd.endpoints is missing; write the URLs of etcd's members, such as [https://192.168.77.101:2379]
--control-etcd-username: control.etcd: control.etcd.username and control.etcd.passwordFile belong together; write both or none
--tun-lanes: "99" is not a whole number from 0 to 16; write one`)
}
