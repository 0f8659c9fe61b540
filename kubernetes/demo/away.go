package main

import (
	"context"
	"fmt"
	"time"

	"weft/internal/family"
	"weft/internal/stage"
	"weft/kubernetes"
)

// firstPatience is for the first try to reach a pod; each further one has twice as long. TCP
// alone would send again after a second only, and that would be measured.
const firstPatience = 100 * time.Millisecond

// killAPIServer kills the API server, and the weftd of node1 as well: it must start from
// what it has noted of the other nodes.
func (d *demo) killAPIServer(ctx context.Context) error {
	node1 := d.Node(1)
	if err := d.Snapshot(ctx, node1); err != nil {
		return d.Concerning(err, node1)
	}
	if err := d.enterPods(ctx); err != nil {
		return err
	}
	d.Server.Kill()
	d.OK("kube-apiserver is killed: SIGKILL")
	node1.Kill()
	d.OK("weftd on node1 is killed")
	if err := d.startAlone(ctx); err != nil {
		return d.Concerning(err, node1)
	}
	probes := stage.Cross(places(d.pods), places(d.pods))
	err := d.Timed(fmt.Sprintf("every pod reaches every other one, with no API server: %d probes", len(probes)), func() error {
		return d.ProbeAll(ctx, probes)
	})
	if err == nil {
		err = kubernetes.AwaitMetric(ctx, node1, "weft_state_current", 0) // it says so itself
	}
	if err != nil {
		return d.Concerning(err)
	}
	if err := d.Timed("kube-apiserver is started again, and ready", func() error { return d.Server.Start(ctx) }); err != nil {
		return err
	}
	return d.Concerning(d.Timed("weftd on node1 has the list of nodes from it again", func() error {
		return kubernetes.AwaitMetric(ctx, node1, "weft_state_current", 1)
	}), node1)
}

// enterPods has programs run in the pods' networks without an API server, from now on.
func (d *demo) enterPods(ctx context.Context) error {
	for _, p := range d.pods {
		prepare, err := d.Command(ctx, &p.pod)
		if err != nil {
			return err
		}
		p.run = func(ctx context.Context, command ...string) (string, error) {
			out, err := prepare(ctx, "busybox", command...).Output()
			return string(out), err
		}
	}
	return nil
}

// startAlone starts weftd on node1 and measures how long it takes until a pod there
// reaches one of node2.
func (d *demo) startAlone(ctx context.Context) error {
	node1, from, to := d.Node(1), d.pods[0], d.on(d.Node(2))[0]
	started := time.Now()
	if err := node1.Start(ctx); err != nil {
		return err
	}
	d.Done(time.Since(started), "weftd on node1 is started, and ready")
	patience := firstPatience
	err := kubernetes.Wait(ctx, from.Name+" to reach "+to.Name, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		patience *= 2
		out, err := from.run(ctx, "wget", "-q", "-O", "-", kubernetes.WhoamiURL(to.Server(family.IPv4)))
		if err != nil {
			return err
		}
		return mustAnswer(out, kubernetes.Answer{Server: to.HostName, Client: family.IPv4.First(from.Inside)})
	})
	if err != nil {
		return err
	}
	d.Done(time.Since(started), "since its start: %s on node1 reaches %s on node2", from.Name, to.Name)
	return nil
}
