package daemon

import (
	"context"
	"crypto/ed25519"
	"log/slog"

	"weft/control"
	"weft/drop"
	"weft/encap"
	"weft/encap/sealed"
	"weft/encap/sealed/handshake"
	"weft/encap/vxlan"
	"weft/internal/config"
	"weft/internal/nodekey"
	"weft/router"
)

// identify returns what the node knows of itself by its configuration, and its key if
// the encapsulation needs one.
func identify(c config.Config) (control.Options, ed25519.PrivateKey, error) {
	options := control.Options{Node: c.Node, ClusterCIDRs: c.ClusterCIDRs}
	if c.Encapsulation != config.EncapsulationSealed {
		return options, nil, nil
	}
	key, err := nodekey.Load(c.KeyFile)
	if err != nil {
		return options, nil, err
	}
	options.Key = nodekey.FingerprintOf(key.Public().(ed25519.PublicKey))
	return options, key, nil
}

// spread is how the datagrams of an encapsulation name their lane.
func spread(c config.Config) encap.Spread {
	if c.Encapsulation == config.EncapsulationSealed {
		return sealed.SpreadBy()
	}
	return encap.Spread{}
}

// keys are the keys agreed with the peers, or nil where packets are not sealed.
type keys struct {
	peers   *sealed.Peers
	manager *handshake.Manager
}

func newKeys(c config.Config, key ed25519.PrivateKey, conns []*encap.Conn, log *slog.Logger) (*keys, error) {
	if key == nil {
		return nil, nil
	}
	peers := sealed.NewPeers()
	manager, err := handshake.New(key, len(conns), peers, conns[0], conns[0].LocalAddr(), log)
	if err != nil {
		return nil, err
	}
	if c.UDP.GSO == config.GSOAuto {
		manager.Runs = conns[0].Runs
	}
	return &keys{peers, manager}, nil
}

// codec returns that of one lane.
func (p *path) codec(c config.Config, lane int) router.Codec {
	if p.keys == nil {
		codec := vxlan.New(c.VXLAN.VNI)
		codec.Messages, codec.Peers, codec.Lane = p.prober, p.vxlan, lane
		return codec
	}
	codec := sealed.NewCodec(p.keys.peers, p.keys.manager, lane, len(p.conns))
	codec.Messages = p.prober
	return codec
}

// update makes a Plan's peers those that the lanes and the handshake know, before its table is
// published.
func (p *path) update(plan *control.Plan) {
	p.keys.update(plan)
	if p.vxlan != nil {
		p.vxlan.Set(plan.Peers)
	}
}

// update makes the peers those of a Plan, before its table is published.
func (k *keys) update(plan *control.Plan) {
	if k != nil {
		k.manager.Update(plan.Self, plan.Peers)
	}
}

// run agrees on keys until ctx is done.
func (k *keys) run(ctx context.Context) error {
	if k == nil {
		<-ctx.Done()
		return nil
	}
	return k.manager.Run(ctx)
}

// add adds to what the lanes count what became of packets that had to wait for keys.
func (k *keys) add(s router.Stats) router.Stats {
	if k != nil {
		waited := k.peers.Waited()
		s.Outbound.Packets += waited.Packets
		s.Outbound.Bytes += waited.Bytes
		s.Drops[drop.NoKeys] += waited.Lost
	}
	return s
}
