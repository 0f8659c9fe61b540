package measure

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"weft/benchmarks/load"
	"weft/benchmarks/machine"
)

// udpPort is where what receives listens.
const udpPort = 7001

func (p pods) target() string { return netip.AddrPortFrom(p.to.Addr, udpPort).String() }

// shot is one source's packets, and what became of them.
type shot struct {
	sent    load.Count
	arrived load.Count
	cpu     machine.CPU
}

// loss is the part of the packets that did not arrive.
func (s shot) loss() float64 {
	if s.sent.Packets == 0 {
		return 1
	}
	return 1 - float64(s.arrived.Packets)/float64(s.sent.Packets)
}

// shoot sends packets of a kind for a while; perSecond 0 means at full speed.
func (p pods) shoot(ctx context.Context, sizes string, perSecond float64, during time.Duration) (shot, error) {
	var s shot
	sink, err := p.to.StartReady(ctx, "ready", p.podload, "sink", strconv.Itoa(udpPort))
	if err != nil {
		return s, err
	}
	defer sink.Kill()
	cpu, err := machine.StartCPU()
	if err != nil {
		return s, err
	}
	err = p.from.RunJSON(ctx, &s.sent, p.podload, "source", p.target(), sizes,
		strconv.FormatFloat(perSecond, 'f', -1, 64), during.String())
	if err != nil {
		return s, err
	}
	if err := sink.Finish(&s.arrived); err != nil {
		return s, err
	}
	s.cpu, err = cpu.Stop()
	return s, err
}

// flood measures how many packets arrive while a source sends without regard to loss.
func flood(sizes string) func(context.Context, pods, time.Duration) (Values, error) {
	return func(ctx context.Context, p pods, during time.Duration) (Values, error) {
		s, err := p.shoot(ctx, sizes, 0, during)
		if err != nil {
			return nil, err
		}
		values := Values{arrived.Key: s.arrived.Rate() / 1e3}
		if s.arrived.Packets > 0 {
			values[cpuPerMega.Key] = s.cpu.Busy / (float64(s.arrived.Packets) / 1e6)
		}
		return values, nil
	}
}
