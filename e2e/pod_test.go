package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"weft/internal/testnet"
	"weft/ipam"
)

// pod is a sandbox, in CRI's words.
type pod struct {
	*machine
	id     string
	config *cri.PodSandboxConfig

	// addrs are the pod's addresses as containerd reports them, IPv4 first.
	addrs []netip.Addr
}

// A server listens on serverPort, which hostPort of its node leads to.
const (
	serverPort = 80
	hostPort   = 8080
)

// sandbox is the configuration of a pod.
func (m *machine) sandbox(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
		Hostname: name,
		Linux:    &cri.LinuxPodSandboxConfig{CgroupParent: m.Cgroup()},
	}
}

// runPod starts a pod, which goes at the end of the test.
func (m *machine) runPod(ctx context.Context, config *cri.PodSandboxConfig) (*pod, error) {
	response, err := m.pods.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, fmt.Errorf("run pod %s: %w", config.Metadata.Name, err)
	}
	p := &pod{machine: m, id: response.PodSandboxId, config: config}
	status, err := p.status(ctx)
	if err != nil {
		return nil, err
	}
	p.addrs, err = addrsOf(status.Network)
	return p, err
}

// run is runPod for a test that can't go on without the pod.
func run(t *testing.T, m *machine, config *cri.PodSandboxConfig) *pod {
	t.Helper()
	p, err := m.runPod(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pod) status(ctx context.Context) (*cri.PodSandboxStatus, error) {
	response, err := p.pods.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		return nil, fmt.Errorf("status of pod %s: %w", p.config.Metadata.Name, err)
	}
	return response.Status, nil
}

func addrsOf(status *cri.PodSandboxNetworkStatus) (addrs []netip.Addr, err error) {
	texts := []string{status.GetIp()}
	for _, ip := range status.GetAdditionalIps() {
		texts = append(texts, ip.Ip)
	}
	for _, text := range texts {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("the pod's addresses: %w", err)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// remove does what kubelet does when a pod goes.
func (p *pod) remove(ctx context.Context) error { return p.removePod(ctx, p.id) }

func (m *machine) removePod(ctx context.Context, id string) error {
	if _, err := m.pods.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop pod %s: %w", id, err)
	}
	if _, err := m.pods.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("remove pod %s: %w", id, err)
	}
	return nil
}

// removePods removes all pods of the machine, those that did not become ready too.
func (m *machine) removePods(ctx context.Context) error {
	if m.conn == nil {
		return nil
	}
	list, err := m.pods.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list the pods of %s: %w", m.Name(), err)
	}
	var group errgroup.Group
	for _, p := range list.Items {
		group.Go(func() error { return m.removePod(ctx, p.Id) })
	}
	return group.Wait()
}

// lease is the pod's lease by weft's own account.
func (p *pod) lease(t *testing.T) ipam.Lease {
	t.Helper()
	leases, err := p.leases()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		if l.ContainerID == p.id && l.IfName == "eth0" {
			return l
		}
	}
	t.Fatalf("pod %s has no lease among %v", p.config.Metadata.Name, leases)
	return ipam.Lease{}
}

// container is a process in a pod.
type container struct {
	*pod
	id string
}

// start starts a container.
func (p *pod) start(t *testing.T, name string, command ...string) *container {
	t.Helper()
	created, err := p.pods.CreateContainer(t.Context(), &cri.CreateContainerRequest{
		PodSandboxId:  p.id,
		SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name},
			Image:    &cri.ImageSpec{Image: testnet.Image},
			Command:  command,
			Linux:    &cri.LinuxContainerConfig{},
		},
	})
	if err != nil {
		t.Fatalf("create container %s: %v", name, err)
	}
	if _, err := p.pods.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		t.Fatalf("start container %s: %v", name, err)
	}
	return &container{p, created.ContainerId}
}

// startServer starts a web server that reports its client's address, and returns when it answers.
func (p *pod) startServer(t *testing.T) *container {
	t.Helper()
	c := p.start(t, "server", "httpd", "-f", "-p", fmt.Sprint(serverPort), "-h", "/www")
	eventually(t, "the server of "+p.config.Metadata.Name, func(ctx context.Context) error {
		_, err := c.ask(ctx, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), serverPort))
		return err
	})
	return c
}

// exec runs a program in the container and returns its output.
func (c *container) exec(ctx context.Context, command ...string) (string, error) {
	response, err := c.pods.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: command, Timeout: 5})
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	if response.ExitCode != 0 {
		return "", fmt.Errorf("%s: exit status %d: %s", strings.Join(command, " "), response.ExitCode, response.Stderr)
	}
	return string(response.Stdout), nil
}

// asker is from where a server is asked.
type asker interface {
	ask(ctx context.Context, server netip.AddrPort) (answer, error)
}

// answer is a server's answer.
type answer struct {
	server string     // the pod's host name
	client netip.Addr // as the server sees it
}

// ask leaves the time limit to exec: Debian's wget crashes when it is given one.
func (c *container) ask(ctx context.Context, server netip.AddrPort) (answer, error) {
	out, err := c.exec(ctx, "wget", "-q", "-O", "-", url(server))
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(out)
}

// outsider asks from a namespace, which need not be a pod's.
type outsider struct{ *testnet.Namespace }

func (o outsider) ask(ctx context.Context, server netip.AddrPort) (answer, error) {
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       o.Dial,
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url(server), nil)
	if err != nil {
		return answer{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(string(body))
}

func url(server netip.AddrPort) string { return "http://" + server.String() + "/cgi-bin/whoami" }

// parseAnswer reads what the script whoami prints. busybox writes IPv6 in brackets.
func parseAnswer(text string) (answer, error) {
	server, client, _ := strings.Cut(strings.TrimSpace(text), " ")
	addr, err := netip.ParseAddr(strings.Trim(client, "[]"))
	if err != nil {
		return answer{}, fmt.Errorf("the server answers %q: %w", text, err)
	}
	return answer{server, addr.Unmap()}, nil
}

// expectAnswer asks a server, which must see the client under an address.
func expectAnswer(t *testing.T, what string, from asker, at netip.AddrPort, want answer) {
	t.Helper()
	got, err := from.ask(t.Context(), at)
	if err != nil {
		t.Errorf("%s, at %s: %v", what, at, err)
	} else if got != want {
		t.Errorf("%s, at %s: %s sees %s, want %s to see %s", what, at, got.server, got.client, want.server, want.client)
	}
}
