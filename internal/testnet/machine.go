package testnet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Machine is a Node that programs find like a machine of their own: besides the network,
// /run, /var/lib, /var/log, /etc, /opt, the processes and the host name are the node's.
// Several containerds or kubelets would otherwise meet there, and with those of the host.
// What runs in it ends with the Net, containers too, and with it what they have mounted.
type Machine struct {
	*Node

	// Containerd answers on ContainerdSocket, and knows Image once that is imported.
	Containerd *Service

	// holder keeps the machine's namespaces.
	holder *Service
}

// ContainerdSocket is containerd's, as programs in the machine know it. Others find it by Path.
const ContainerdSocket = "/run/containerd/containerd.sock"

// isolate runs in new namespaces, and keeps them. The folder that testnet keeps its files
// in stays where it is: weft's paths are in there. kubelet sets some of the kernel's
// parameters for the whole host; it must find these as it wants them, and leave the real
// ones alone. The loop collects orphans that end.
const isolate = `
set -e
root=$1 networks=$2 plugins=$3
hostname "$4"
mkdir -p "$root/run/weft-testnet" "$root/var/lib/cni" "$root/var/log" "$root/sysctl" "$root/opt/cni/bin"
cp -a /etc "$root/etc"
mkdir -p "$root/etc/cni/net.d"
set_apart() {
	echo "$2" >"$root/sysctl/${1##*/}"
	if [ -e "/proc/sys/$1" ]; then mount --bind "$root/sysctl/${1##*/}" "/proc/sys/$1"; fi
}
set_apart vm/overcommit_memory 1
set_apart vm/panic_on_oom 0
set_apart kernel/panic 10
set_apart kernel/panic_on_oops 1
set_apart kernel/keys/root_maxkeys 1000000
set_apart kernel/keys/root_maxbytes 25000000
mount --bind "$root/var/lib" /var/lib
mount --bind "$root/var/log" /var/log
mount --rbind /run/weft-testnet "$root/run/weft-testnet"
mount --rbind "$root/run" /run
mount --bind "$networks" "$root/etc/cni/net.d"
mount --rbind "$root/etc" /etc
mount --bind "$plugins" "$root/opt/cni/bin"
mount --rbind "$root/opt" /opt
touch "$root/isolated"
while sleep 1000; do :; done`

// NewMachine makes a machine of a node that is in the Net already, and starts nothing in
// it. Its /etc/cni/net.d is the node's ConfDir, and pluginDir its /opt/cni/bin.
func (n *Node) NewMachine(ctx context.Context, pluginDir string) (*Machine, error) {
	m := &Machine{Node: n}
	if err := m.isolate(ctx, pluginDir); err != nil {
		return nil, fmt.Errorf("make a machine of %s: %w", n.name, err)
	}
	config := filepath.Join(m.dir, "containerd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, containerdConfig, Image), 0o644); err != nil {
		return nil, err
	}
	m.Containerd = m.newService("containerd", "containerd", []string{"--config", config}, func(ctx context.Context) error {
		return m.inside(ctx, "ctr", "version")
	})
	return m, nil
}

func (m *Machine) isolate(ctx context.Context, pluginDir string) error {
	isolated := func(context.Context) error {
		_, err := os.Stat(m.Path("isolated"))
		return err
	}
	m.holder = m.AddService("machine", isolated, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
		"--", "sh", "-c", isolate, "sh", m.root(), m.ConfDir(), pluginDir, m.options.Name)
	return m.holder.Start(ctx)
}

// root holds the machine's /run, /var/lib, /var/log, /etc and /opt.
func (m *Machine) root() string { return filepath.Join(m.dir, "machine") }

// Path is where a file in the machine's /run, /var/lib, /var/log, /etc or /opt is for the others.
func (m *Machine) Path(inside string) string { return filepath.Join(m.root(), inside) }

// Inside prepares a program to run in the machine, as Command does for the network alone.
func (m *Machine) Inside(ctx context.Context, name string, args ...string) *exec.Cmd {
	in := fmt.Sprintf("/proc/%d/ns/", m.holder.PID())
	return m.Command(ctx, "nsenter", append([]string{"--mount=" + in + "mnt", "--uts=" + in + "uts", "--pid=" + in + "pid_for_children", "--", name}, args...)...)
}

// inside runs a program in the machine.
func (m *Machine) inside(ctx context.Context, name string, args ...string) error {
	if out, err := m.Inside(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("in %s: %s: %w: %s", m.name, name, err, out)
	}
	return nil
}

// newService is a program that runs in the machine.
func (m *Machine) newService(name, program string, arguments []string, ready func(context.Context) error) *Service {
	return m.net.AddService(name+" of "+m.name, filepath.Join(m.dir, name+".log"), ready, func() (*exec.Cmd, error) {
		return m.Inside(context.Background(), program, arguments...), nil
	})
}

// containerdConfig fits containerd 1.6. Without CAP_SYS_RESOURCE, which containers that
// run tests often lack, no oom_score_adj can be lowered. Snapshots are copies, because
// the test's folder may be on an overlay itself.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
`

// ImportImage makes containerd know an image: WriteImage's, or another in that format.
func (m *Machine) ImportImage(ctx context.Context, archive string) error {
	return m.inside(ctx, "ctr", "--namespace", "k8s.io", "images", "import", "--snapshotter", "native", archive)
}

// Cgroup is the parent that the cgroups of all containers in the machine must have.
func (m *Machine) Cgroup() string { return "/" + m.name }

// Cgroups lists the cgroups in the machine's own, the innermost first. There is a tree
// of them for each controller, or one for all.
func (m *Machine) Cgroups() []string { return cgroupsBelow(ownCgroups(m.name)) }
