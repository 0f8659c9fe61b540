package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"weft/internal/testnet"
)

// machine is one of testnet's, with what kubelet has to speak to containerd.
type machine struct {
	*testnet.Machine
	conn   *grpc.ClientConn
	pods   cri.RuntimeServiceClient
	images cri.ImageServiceClient
}

// The node's own files, as programs in the machine know them.
const (
	netnsDir = "/run/netns"
	cacheDir = "/var/lib/cni"
)

func newMachine(ctx context.Context, node *testnet.Node) (*machine, error) {
	inner, err := node.NewMachine(ctx, binDir)
	if err != nil {
		return nil, err
	}
	m := &machine{Machine: inner}
	m.conn, err = grpc.NewClient("unix://"+m.Path(testnet.ContainerdSocket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	m.pods, m.images = cri.NewRuntimeServiceClient(m.conn), cri.NewImageServiceClient(m.conn)
	return m, nil
}

// run runs a program in the machine and returns its output.
func (m *machine) run(ctx context.Context, name string, args ...string) (string, error) {
	return m.runWith(ctx, nil, name, args...)
}

// runWith is run with more environment variables.
func (m *machine) runWith(ctx context.Context, environ []string, name string, args ...string) (string, error) {
	cmd := m.Inside(ctx, name, args...)
	cmd.Env = append(cmd.Env, environ...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s: %w: %s%s", strings.Join(append([]string{name}, args...), " "), err, out, exit.Stderr)
	}
	return string(out), err
}

// startContainerd returns when containerd answers.
func (m *machine) startContainerd(ctx context.Context) error {
	if err := m.Containerd.Start(ctx); err != nil {
		return err
	}
	return testnet.Wait(ctx, "containerd of "+m.Name(), func(ctx context.Context) error {
		m.conn.ResetConnectBackoff()
		_, err := m.pods.Version(ctx, &cri.VersionRequest{})
		return err
	})
}

// importImage makes containerd know the image of all containers.
func (m *machine) importImage(ctx context.Context, archive string) error {
	if err := m.ImportImage(ctx, archive); err != nil {
		return err
	}
	return testnet.Wait(ctx, "the image on "+m.Name(), func(ctx context.Context) error {
		status, err := m.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: testnet.Image}})
		if err == nil && status.Image == nil {
			err = errors.New("containerd does not list it")
		}
		return err
	})
}
