package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/family"
	"weft/internal/stage"
	"weft/internal/testnet"
	"weft/kubernetes"
)

const (
	// questions are put to each address of the Service.
	questions = 30

	hostPort = "8081"
)

// askAgain is run in a pod, with how often to ask and the URL.
const askAgain = `
i=0
while [ $i -lt $1 ]; do
	busybox timeout 5 busybox wget -q -O - "$2" || exit 1
	i=$((i+1))
done`

func (d *demo) showServices(ctx context.Context) error {
	var addrs []netip.Addr
	err := d.Timed("a Service, and its pods web1 on node1 and web2 on node2, are ready", func() (err error) {
		if err := d.Admin.Apply(ctx, filepath.Join(d.root, "kubernetes", "testdata", web)); err != nil {
			return err
		}
		if _, err := d.Pods(ctx, web, web, nodeCount); err != nil {
			return d.Concerning(err)
		}
		addrs, err = d.serviceAddrs(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range family.All {
		if err := d.askService(ctx, d.pods[0], f.First(addrs)); err != nil {
			return d.Concerning(err)
		}
	}
	d.Note("kube-proxy chooses who answers; weft carries the packets to where that is.")
	d.Gap()
	return d.showHostPort(ctx)
}

func (d *demo) serviceAddrs(ctx context.Context) (addrs []netip.Addr, err error) {
	service, err := d.Admin.CoreV1().Services(web).Get(ctx, web, meta.GetOptions{})
	if err != nil {
		return nil, err
	}
	for _, text := range service.Spec.ClusterIPs {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs, nil
}

// askService has a pod ask a Service until kube-proxy knows the pods of both nodes, and
// then counts the answers of each pod.
func (d *demo) askService(ctx context.Context, from *webPod, addr netip.Addr) error {
	server := net.JoinHostPort(addr.String(), "80")
	var count map[string]int
	ask := func(ctx context.Context) (err error) {
		if count, err = d.countAnswers(ctx, from, server); err != nil {
			return err
		}
		if count["web1"] == 0 || count["web2"] == 0 || len(count) > nodeCount {
			return fmt.Errorf("the answers are from %v", count)
		}
		return nil
	}
	if err := kubernetes.Wait(ctx, "pods of both nodes to answer at "+server, ask); err != nil {
		return err
	}
	if err := ask(ctx); err != nil {
		return err
	}
	d.OK("%s asks %-19s %d times: web1 on node1 answers %d times, web2 on node2 %d", from.Name, server, questions, count["web1"], count["web2"])
	return nil
}

func (d *demo) countAnswers(ctx context.Context, from *webPod, server string) (map[string]int, error) {
	out, err := from.run(ctx, "sh", "-c", askAgain, "sh", fmt.Sprint(questions), kubernetes.WhoamiURL(server))
	if err != nil {
		return nil, err
	}
	count := make(map[string]int)
	for line := range strings.Lines(out) {
		answer, err := kubernetes.ParseAnswer(line)
		if err != nil {
			return nil, err
		}
		count[answer.Server]++
	}
	return count, nil
}

// showHostPort asks the pod host-port of node2 by the node's address and port.
func (d *demo) showHostPort(ctx context.Context) error {
	if _, err := d.Pods(ctx, spread, "host-port", 1); err != nil {
		return d.Concerning(err)
	}
	server := net.JoinHostPort(d.Node(2).Entry().Endpoint.Addr().String(), hostPort)
	d.Line("%s", d.Paint(stage.Bold, stage.PadRight("who asks "+server, 36)+"is answered by   who sees"))
	inside := func(ns *testnet.Namespace) run {
		return func(ctx context.Context, command ...string) (string, error) {
			return ns.Exec(ctx, command[0], command[1:]...)
		}
	}
	client := d.pods[0]
	for _, who := range []struct {
		name string
		run  run
		addr netip.Addr
	}{
		{client.Name + ", a pod of node1", client.run, family.IPv4.First(client.Addrs)},
		{"node1", inside(d.Node(1).Namespace), d.Node(1).Entry().Endpoint.Addr()},
		{"the host outside", inside(d.Cluster.Outside), testnet.OutsideUnderlay4},
	} {
		out, err := who.run(ctx, "busybox", "sh", "-c", askAgain, "sh", "1", kubernetes.WhoamiURL(server))
		if err == nil {
			err = mustAnswer(out, kubernetes.Answer{Server: "host-port", Client: who.addr})
		}
		if err != nil {
			return d.Concerning(fmt.Errorf("%s asks %s: %w", who.name, server, err))
		}
		d.OK("%-34s%-17s%-17sits own", who.name, "host-port", who.addr)
	}
	return nil
}

func mustAnswer(out string, want kubernetes.Answer) error {
	answer, err := kubernetes.ParseAnswer(out)
	if err == nil && answer != want {
		err = fmt.Errorf("%s has answered, and saw %s, want %s", answer.Server, answer.Client, want.Client)
	}
	return err
}
