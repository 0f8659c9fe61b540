package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"weft/internal/stage"
	"weft/internal/testnet"
)

// concerning has the log of a node, of all if none is named, printed with an error.
func (d *demo) concerning(err error, nodes ...*testnet.Node) error {
	if err == nil {
		return nil
	}
	if len(nodes) == 0 {
		nodes = d.Cluster.Nodes()
	}
	return stage.Concerning(err, nodes...)
}

func (d *demo) showReachability(ctx context.Context) error {
	err := d.Timed(fmt.Sprintf("a Deployment of %d pods, and a pod in each node's own network, are ready", replicas), func() error {
		if err := d.Admin.Apply(ctx, filepath.Join(d.root, "kubernetes", "testdata", spread)); err != nil {
			return err
		}
		return d.concerning(d.findPods(ctx))
	})
	if err != nil {
		return err
	}
	d.Gap()
	d.printPods()
	everyone := slices.Concat(d.pods, d.hosts)
	var all []*cell
	for _, f := range stage.Families {
		cells := cross(f, everyone, everyone)
		all = append(all, cells...)
		_ = probeAll(ctx, cells, d.inPod) // judged below, when both tables are printed
		d.printMatrix(f, everyone, cells)
	}
	if err := judge(ctx, all); err != nil {
		return d.concerning(err)
	}
	d.OK("%d probes, each an HTTP exchange and five pings: all answered", len(all))
	d.Note("Figures are the shortest round trips in µs. Blank: to itself, and pairs without a pod.")
	d.Gap()
	d.printSources(all)
	return nil
}

func (d *demo) printPods() {
	d.Line("%s", d.Paint(stage.Bold, "pod  on     addresses                               its name in Kubernetes"))
	for _, p := range d.pods {
		d.Line("%-4s %-6s %-39s %s", p.name, p.pod.Spec.NodeName, join(p.addrs, "  "), p.pod.Name)
	}
	d.Gap()
}

func (d *demo) printMatrix(f stage.Family, places []place, cells []*cell) {
	var names []string
	for _, p := range places {
		names = append(names, p.name)
	}
	d.Matrix(f.String(), names, names, func(a, b int) (string, error) {
		i := slices.IndexFunc(cells, func(c *cell) bool { return c.from.name == names[a] && c.to.name == names[b] })
		if i < 0 {
			return "", nil
		}
		return cells[i].rtt, cells[i].err
	})
}

// printSources prints as whom the others saw the first pod, in probes that have succeeded.
func (d *demo) printSources(cells []*cell) {
	client := d.pods[0]
	d.Line("%s", d.Paint(stage.Bold, "the web server in                sees "+client.name+" as"))
	for _, c := range cells {
		if c.from.name != client.name {
			continue
		}
		about := "on another node"
		switch here := c.to.pod.Spec.NodeName == client.pod.Spec.NodeName; {
		case !c.to.isPod() && here:
			about = "the pod's own node"
		case !c.to.isPod():
			about = "another node"
		case here:
			about = "on the same node"
		}
		d.OK("%-8s%-23s%-20s its own", c.to.name, about, c.seenAs)
	}
	d.Note("Within the cluster nothing is translated: each probe above was seen as its own.")
}
