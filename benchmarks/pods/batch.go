package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"weft/internal/testnet"
)

// pod is a namespace that waits to be attached, or is.
type pod struct {
	ns.NetNS
	node *Node
	id   string

	// result is what ADD printed, as long as the pod is attached.
	result []byte
}

// batch is the pods that a node gets in one measurement.
type batch struct {
	node *Node
	pods []*pod
}

// newBatch makes the namespaces of count pods.
func newBatch(n *Node, count int) (*batch, error) {
	b := &batch{node: n}
	for i := range count {
		netNS, err := ns.TempNetNS()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make a pod's namespace: %w", err), b.remove())
		}
		b.pods = append(b.pods, &pod{NetNS: netNS, node: n, id: fmt.Sprintf("pod-%d", i)})
		if err := netNS.Do(func(ns.NetNS) error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		}); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare a pod's namespace: %w", err), b.remove())
		}
	}
	return b, nil
}

// path names the namespace. NetNS has one that names a thread, which may be gone.
func (p *pod) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.Fd()) }

// lastOne is a veth pair between a node and the last of its pods.
const lastOne = "last"

// removeLimit bounds the wait for the kernel.
const removeLimit = 30 * time.Second

// remove removes the namespaces, and waits until the kernel has taken them apart: it does
// so later, under the lock that everything waits for that is measured next.
func (b *batch) remove() error {
	if len(b.pods) == 0 {
		return nil
	}
	// Namespaces go in the order in which they are closed, so that the rest is gone when
	// the last one's link is.
	last := b.pods[len(b.pods)-1]
	err := b.node.Do(func() error {
		veth := netlink.NewVeth(netlink.LinkAttrs{Name: lastOne})
		veth.PeerName, veth.PeerNamespace = lastOne, netlink.NsFd(int(last.Fd()))
		return netlink.LinkAdd(veth)
	})
	for _, p := range b.pods {
		err = errors.Join(err, p.Close())
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
		defer cancel()
		err = testnet.Wait(ctx, "the pods' namespaces to go", func(context.Context) error {
			return b.node.Do(func() error {
				_, err := netlink.LinkByName(lastOne)
				if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
					return nil
				}
				return errors.Join(err, errors.New("the last one is there"))
			})
		})
	}
	if err != nil {
		return fmt.Errorf("remove the pods of %s: %w", b.node.System, err)
	}
	return nil
}

// call has the node's plugin do a command, and returns how long that took since began, or
// since the process was started if began is zero.
func (p *pod) call(ctx context.Context, command string, began time.Time) (time.Duration, error) {
	conf, err := p.node.confWith(p.result)
	if err != nil {
		return 0, err
	}
	args := invoke.Args{
		Command: command, ContainerID: p.id, NetNS: p.path(), IfName: testnet.PodLink,
		Path: filepath.Dir(p.node.plugin),
	}
	environ := args.AsEnv()
	var out []byte
	var took time.Duration
	err = p.node.Do(func() (err error) {
		if began.IsZero() {
			began = time.Now()
		}
		out, err = new(invoke.RawExec).ExecPlugin(ctx, p.node.plugin, conf, environ)
		took = time.Since(began)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s of %s by %s: %w", command, p.id, p.node.System, err)
	}
	switch command {
	case add:
		p.result = out
	case del:
		p.result = nil
	}
	return took, nil
}

// The commands of CNI that are measured.
const (
	add    = "ADD"
	del    = "DEL"
	status = "STATUS"
)

// abandon detaches what a measurement that failed may have attached. DEL of a pod that
// is not attached does nothing.
func (b *batch) abandon() error {
	// The caller's context is often what ended.
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	var errs []error
	for _, p := range b.pods {
		_, err := p.call(ctx, del, time.Time{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
