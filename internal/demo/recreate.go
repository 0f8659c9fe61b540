package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/stage"
	"weft/internal/testnet"
)

// silence is how long nothing must answer at the old address.
const silence = 300 * time.Millisecond

// recreatePod deletes a pod and makes it again, as Kubernetes does when a pod is
// replaced.
func (d *demo) recreatePod(ctx context.Context) error {
	i := podsPerNode // the first pod of the second node
	old := d.pods[i]
	d.servers.stop(old.Namespace)
	err := d.Timed(fmt.Sprintf("pod %s deleted; it was %s", old.PodName, testnet.Join(old.Addrs, "  ")), func() error {
		return old.Node.DeletePod(ctx, old.PodName)
	})
	if err != nil {
		return d.Concerning(err, old.Node)
	}
	d.pods[i], err = d.addPod(ctx, old.Node, old.PodName)
	if err != nil {
		return err
	}
	for _, addr := range old.Addrs {
		if slices.Contains(d.pods[i].Addrs, addr) {
			return fmt.Errorf("pod %s got its old address %s again at once", old.PodName, addr)
		}
	}
	if err := d.reachRecreated(ctx, i); err != nil {
		return err
	}
	return d.oldAddressesAreSilent(ctx, d.pods[0], old.Addrs)
}

func (d *demo) reachRecreated(ctx context.Context, i int) error {
	pods, _, err := d.places()
	if err != nil {
		return err
	}
	probes := slices.Concat(stage.Cross(pods, pods[i:i+1]), stage.Cross(pods[i:i+1], pods))
	return d.Timed(fmt.Sprintf("every pod reaches the new %s and it reaches them: %d probes", pods[i].Name, len(probes)), func() error {
		return d.ProbeAll(ctx, probes)
	})
}

func (d *demo) oldAddressesAreSilent(ctx context.Context, from *testnet.Pod, addrs []netip.Addr) error {
	for _, addr := range addrs {
		limited, cancel := context.WithTimeout(ctx, silence)
		c, err := converse(limited, from.Namespace, serverAt(addr))
		cancel()
		if err == nil {
			_ = c.Close()
			return fmt.Errorf("something still answers at the old address %s", addr)
		}
	}
	d.OK("nothing answers at %s any more", testnet.Join(addrs, " and "))
	return nil
}
