package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"weft/internal/testnet"
)

// machine is a node that programs find like a machine of their own: besides the network,
// /run, /var/lib and the processes are the node's. Several containerds would otherwise
// meet there, and with one of the host's. When holder ends, the kernel ends everything
// that runs in the machine, containers too, and unmounts what they have mounted.
type machine struct {
	*testnet.Node
	holder     *exec.Cmd
	containerd *exec.Cmd
	conn       *grpc.ClientConn
	pods       cri.RuntimeServiceClient
	images     cri.ImageServiceClient
}

// The node's own files, as programs in the machine know them.
const (
	socketFile = "/run/containerd/containerd.sock"
	netnsDir   = "/run/netns"
	cacheDir   = "/var/lib/cni"
)

// isolate runs in new namespaces, and keeps them. The folder that testnet keeps its files
// in stays where it is: weft's paths are in there. The loop collects what ends as a child
// of nobody.
const isolate = `
set -e
mkdir -p "$1/run/weft-testnet" "$1/var/lib/cni"
mount --rbind /run/weft-testnet "$1/run/weft-testnet"
mount --rbind "$1/run" /run
mount --bind "$1/var/lib" /var/lib
echo isolated
while sleep 1000; do :; done`

func newMachine(node *testnet.Node) (*machine, error) {
	m := &machine{Node: node}
	// An earlier one of this name that was killed with its test has left them.
	if err := m.removeCgroups(context.Background()); err != nil {
		return nil, err
	}
	// testnet kills it when it takes the node away.
	m.holder = node.Command(context.Background(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"--", "sh", "-c", isolate, "sh", m.root())
	m.holder.Stderr = os.Stderr
	stdout, err := m.holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.holder.Start(); err != nil {
		return nil, err
	}
	if word, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("make a machine of %s: it said %q: %w", node.Name(), word, err)
	}
	return m, nil
}

// root holds the machine's /run and /var/lib.
func (m *machine) root() string { return filepath.Join(m.Dir(), "machine") }

// path is where a file of the machine is for the others.
func (m *machine) path(inside string) string { return filepath.Join(m.root(), inside) }

// command prepares a program to run in the machine.
func (m *machine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	in := fmt.Sprintf("/proc/%d/ns/", m.holder.Process.Pid)
	return m.Command(ctx, "nsenter", append([]string{"--mount=" + in + "mnt", "--pid=" + in + "pid_for_children", "--", name}, args...)...)
}

// run runs a program in the machine and returns its output.
func (m *machine) run(ctx context.Context, name string, args ...string) (string, error) {
	return m.runWith(ctx, nil, name, args...)
}

// runWith is run with more environment variables.
func (m *machine) runWith(ctx context.Context, environ []string, name string, args ...string) (string, error) {
	cmd := m.command(ctx, name, args...)
	cmd.Env = append(cmd.Env, environ...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s: %w: %s%s", strings.Join(append([]string{name}, args...), " "), err, out, exit.Stderr)
	}
	return string(out), err
}

// containerdConfig fits containerd 1.6. Without CAP_SYS_RESOURCE, which containers that
// run tests often lack, no oom_score_adj can be lowered. Snapshots are copies, because
// the test's folder may be on an overlay itself.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%s"
    conf_dir = "%s"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
`

// startContainerd returns when containerd answers.
func (m *machine) startContainerd(ctx context.Context) error {
	config := filepath.Join(m.Dir(), "containerd.toml")
	text := fmt.Sprintf(containerdConfig, image, binDir, filepath.Join(m.Dir(), "cni"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	log, err := os.OpenFile(m.containerdLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	m.containerd = m.command(context.Background(), "containerd", "--config", config)
	m.containerd.Stdout, m.containerd.Stderr = log, log
	if err := m.containerd.Start(); err != nil {
		return err
	}
	if m.conn == nil {
		m.conn, err = grpc.NewClient("unix://"+m.path(socketFile), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		m.pods, m.images = cri.NewRuntimeServiceClient(m.conn), cri.NewImageServiceClient(m.conn)
	}
	return testnet.Wait(ctx, "containerd of "+m.Name(), func(ctx context.Context) error {
		m.conn.ResetConnectBackoff()
		_, err := m.pods.Version(ctx, &cri.VersionRequest{})
		return err
	})
}

func (m *machine) containerdLog() string { return filepath.Join(m.Dir(), "containerd.log") }

// killContainerd ends containerd as a crash would, and returns when it is gone. What it
// has started goes on. nsenter, of which it is a child, ends with it.
func (m *machine) killContainerd() {
	nsenter := m.containerd.Process.Pid
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nsenter, nsenter))
	if pid, err := strconv.Atoi(strings.TrimSpace(string(children))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	} else {
		_ = m.containerd.Cancel()
	}
	_ = m.containerd.Wait()
}

// importImage makes containerd know the image of all containers.
func (m *machine) importImage(ctx context.Context, archive string) error {
	_, err := m.run(ctx, "ctr", "--namespace", "k8s.io", "images", "import", "--snapshotter", "native", archive)
	if err != nil {
		return err
	}
	return testnet.Wait(ctx, "the image on "+m.Name(), func(ctx context.Context) error {
		status, err := m.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}})
		if err == nil && status.Image == nil {
			err = errors.New("containerd does not list it")
		}
		return err
	})
}

// cgroups is the parent of the cgroups of all containers of the machine.
func (m *machine) cgroups() string { return "/" + m.Name() }

// leftCgroups lists the cgroups below the machine's, the innermost first, and its own
// last. There is a tree of them for each controller, or one for all.
func (m *machine) leftCgroups() (below, own []string) {
	own, _ = filepath.Glob("/sys/fs/cgroup/*" + m.cgroups())
	if _, err := os.Stat("/sys/fs/cgroup" + m.cgroups()); err == nil {
		own = append(own, "/sys/fs/cgroup"+m.cgroups())
	}
	for _, parent := range own {
		_ = filepath.WalkDir(parent, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() && path != parent {
				below = append(below, path)
			}
			return nil
		})
	}
	slices.Reverse(below)
	return below, own
}

// removeCgroups waits for what was just killed to leave them.
func (m *machine) removeCgroups(ctx context.Context) error {
	return testnet.Wait(ctx, "the cgroups of "+m.Name()+" to go", func(context.Context) error {
		below, own := m.leftCgroups()
		for _, dir := range append(below, own...) {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
		return nil
	})
}

// stop ends everything in the machine.
func (m *machine) stop(ctx context.Context) error {
	if m.conn != nil {
		_ = m.conn.Close()
	}
	_ = m.holder.Cancel()
	_ = m.holder.Wait()
	if m.containerd != nil {
		_ = m.containerd.Wait() // nsenter's, which ends after containerd
	}
	return m.removeCgroups(ctx)
}
