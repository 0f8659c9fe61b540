package setup

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"weft/control"
	"weft/control/file"
	"weft/internal/config"
	"weft/internal/invite"
	"weft/internal/nodekey"
	"weft/internal/strict"
)

// Joined is a node that joined by a token.
type Joined struct {
	Node

	// Host is the node that made the token, with the key of which the token has the fingerprint.
	Host    string `json:"host"`
	HostKey string `json:"hostKey"`
}

// JoinToken makes this host a node of the cluster in which a token was made. What must be the same on
// all nodes comes from the host of the token.
func JoinToken(ctx context.Context, r Request, t invite.Token) (*Joined, error) {
	if err := checkTokenFlags(r); err != nil {
		return nil, Mistake{err}
	}
	if err := r.expectNew(); err != nil {
		return nil, err
	}
	path := r.Flags.Lookup("key-file").Value.String()
	fingerprint, change, err := ensureKey(path, false)
	if err != nil {
		return nil, err
	}
	key, err := nodekey.Load(path)
	if err != nil {
		return nil, err
	}
	j := &Joined{HostKey: t.Host.String()}
	var d *draft
	list, err := invite.Join(ctx, t, key, func(c invite.Cluster) (_ invite.Request, err error) {
		j.Host = c.Node
		d, err = r.draft(canReach(t.At), map[string]string{
			"clusterCIDRs": strings.ReplaceAll(control.Join(c.ClusterCIDRs), ", ", ","),
			"listen":       netip.AddrPortFrom(netip.IPv6Unspecified(), t.At.Port()).String(),
			"echo.port":    strconv.Itoa(int(c.EchoPort)),
		})
		if err != nil {
			return invite.Request{}, err
		}
		d.Sealed, d.Key, d.Files = true, fingerprint, []File{change}
		return invite.Request{Name: d.Name, Endpoint: d.Endpoint, PodCIDRs: r.PodCIDRs}, nil
	})
	if err != nil {
		return nil, err
	}
	if err := d.take(list); err != nil {
		return nil, fmt.Errorf("the list of nodes of node %s: %w", j.Host, err)
	}
	n, err := d.write(list)
	if err != nil {
		return nil, err
	}
	j.Node = *n
	return j, nil
}

// checkTokenFlags returns which flags contradict a token.
func checkTokenFlags(r Request) error {
	switch flags := r.Flags; {
	case Registers(flags):
		return errors.New("a token has nodes join a list of nodes in a file; write no other control source, or no token")
	case flags.Changed("cluster-cidrs"):
		return errors.New("the cluster CIDRs come with the token; remove --cluster-cidrs")
	case flags.Changed("encapsulation") && flags.Lookup("encapsulation").Value.String() != string(config.EncapsulationSealed):
		return errors.New("a token is for nodes with keys, which have the encapsulation sealed; remove --encapsulation")
	case r.DryRun:
		return errors.New("joining by a token can't be tried out, since it adds the node to the other node's list; remove --dry-run")
	}
	return nil
}

// take takes over what a list says of this node and of the others.
func (d *draft) take(list []byte) error {
	state, err := file.Parse(d.request.paths()[0], list)
	if err != nil {
		return err
	}
	for _, n := range state.Nodes {
		if n.Name == d.Name {
			d.PodCIDRs, d.Entry = n.PodCIDRs, file.Entry(n)
		} else {
			d.Others = append(d.Others, n.Name)
		}
	}
	return nil
}

// NewHost returns a host that admits one guest to this node's list of nodes, and what it admitted once
// it has. The host waits where the list says that this node is, unless at is valid.
func NewHost(ctx context.Context, c config.Config, at netip.AddrPort) (host *invite.Host, admitted *Node, err error) {
	if c.Control.Source != config.SourceFile {
		return nil, nil, fmt.Errorf("nodes need no token for %s, where they register by themselves; run `weft join` on the new node with the flags that `weft join --help` shows", c.Control.Source)
	}
	if c.Encapsulation != config.EncapsulationSealed {
		return nil, nil, fmt.Errorf("a token is for nodes with keys, which the encapsulation %s does not have; copy the configuration and the list of nodes to the new node, and run `weft join` there", c.Encapsulation)
	}
	key, err := nodekey.Load(c.KeyFile)
	if err != nil {
		return nil, nil, err
	}
	self := nodekey.FingerprintOf(key.Public().(ed25519.PublicKey))
	nodes, err := load(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(nodes, func(n control.Node) bool { return n.Name == c.Node })
	switch {
	case i < 0 || nodes[i].Key != self:
		return nil, nil, fmt.Errorf("this node, %s, is not in %s with its key; `weftd --check` says what is wrong", c.Node, c.Control.File)
	case !at.IsValid():
		at = nodes[i].Endpoint
	}
	admitted = new(Node)
	return &invite.Host{
		Key: key, Token: invite.NewToken(self, at),
		Cluster: invite.Cluster{Node: c.Node, ClusterCIDRs: c.ClusterCIDRs, EchoPort: c.Echo.Port},
		Admit: func(r invite.Request) (list []byte, err error) {
			list, *admitted, err = admit(c, r)
			return list, err
		},
	}, admitted, nil
}

// admit adds a guest to this node's list. A guest that is there already, as after a connection that broke,
// gets the list as it is.
func admit(c config.Config, r invite.Request) (list []byte, n Node, err error) {
	if err := strict.CheckNodeName(r.Name); err != nil {
		return nil, n, err
	}
	options, err := identify(c)
	if err != nil {
		return nil, n, err
	}
	n = Node{Name: r.Name, Source: config.SourceFile, Endpoint: r.Endpoint, ClusterCIDRs: c.ClusterCIDRs, PodCIDRs: r.PodCIDRs, Key: r.Key, Sealed: true}
	list, added, err := update(c.Control.File, options, false, func(nodes []control.Node) (control.Node, error) {
		if len(n.PodCIDRs) == 0 {
			var err error
			if n.PodCIDRs, err = podCIDRs(nodes, c.ClusterCIDRs); err != nil {
				return control.Node{}, err
			}
		}
		for _, other := range nodes {
			if other.Name == n.Name {
				n.PodCIDRs = other.PodCIDRs
			} else if other.Name != c.Node {
				n.Others = append(n.Others, other.Name)
			}
		}
		guest := control.Node{Name: n.Name, Endpoint: n.Endpoint, PodCIDRs: n.PodCIDRs, Key: n.Key}
		n.Entry = file.Entry(guest)
		return guest, nil
	})
	change := Kept
	if added {
		change = Changed
	}
	n.Files = []File{{Path: c.Control.File, Change: change}}
	return list, n, err
}
