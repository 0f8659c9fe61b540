package system

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"time"

	"weft/internal/testnet"
)

const (
	probes         = 5
	probeBytes     = 16 << 20
	probePort      = "7000"
	transferLimit  = 10 * time.Second
	ipAndICMPBytes = 28
)

// Verify checks that the path is what it claims: the wire has the offloads that were
// asked for, pods have the common MTU, packets of that size arrive whole, and what
// pods send leaves by the system's device.
func (p *Path) Verify(ctx context.Context) error {
	if err := p.verifyFeatures(ctx); err != nil {
		return err
	}
	for _, pod := range p.Pods {
		if err := verifyMTU(pod); err != nil {
			return err
		}
	}
	before, err := p.Counters(ctx)
	if err != nil {
		return err
	}
	if err := p.probe(ctx); err != nil {
		return err
	}
	after, err := p.Counters(ctx)
	if err != nil {
		return err
	}
	seen := after.Since(before)
	for i, n := range p.Nodes {
		if left := seen[DevicePackets[i]]; left < probes {
			return fmt.Errorf("pods talk, but only %d packets left %s by %s", left, n.Name(), p.device)
		}
	}
	if p.verify != nil {
		return p.verify(ctx, seen)
	}
	return nil
}

// verifyFeatures checks that the wire still is what testnet made it, and checked when
// it did: a daemon may have changed it since.
func (p *Path) verifyFeatures(ctx context.Context) error {
	for i, n := range p.Nodes {
		have, err := n.Features(ctx, underlayLink)
		if err != nil {
			return err
		}
		if maps.Equal(have, p.Features[i]) {
			continue
		}
		return fmt.Errorf("the offloads of the wire at %s have changed: on were %v, are %v", n.Name(), p.Features[i].On(), Features(have).On())
	}
	return nil
}

func verifyMTU(pod Pod) error {
	return pod.Do(func() error {
		link, err := net.InterfaceByName(testnet.PodLink)
		if err != nil {
			return fmt.Errorf("in %s: %w", pod.Name(), err)
		}
		if link.MTU != InnerMTU {
			return fmt.Errorf("in %s: the MTU of %s is %d, want %d", pod.Name(), link.Name, link.MTU, InnerMTU)
		}
		return nil
	})
}

// probe sends pings of the full MTU that must not be fragmented, then a TCP stream.
func (p *Path) probe(ctx context.Context) error {
	_, err := p.Pods[0].Exec(ctx, "ping", "-n", "-q", "-c", strconv.Itoa(probes), "-i", "0.01", "-W", "2",
		"-M", "do", "-s", strconv.Itoa(InnerMTU-ipAndICMPBytes), p.Pods[1].Addr.String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	if err := p.transfer(ctx); err != nil {
		return fmt.Errorf("transfer %d MiB from pod to pod: %w", probeBytes>>20, err)
	}
	return nil
}

func (p *Path) transfer(ctx context.Context) error {
	listener, err := p.Pods[1].Listen(ctx, "tcp4", "0.0.0.0:"+probePort)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	defer listener.Close()

	received := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- err
			return
		}
		defer conn.Close()
		_, err = io.CopyN(io.Discard, conn, probeBytes)
		received <- err
	}()
	conn, err := p.Pods[0].Dial(ctx, "tcp4", net.JoinHostPort(p.Pods[1].Addr.String(), probePort))
	if err != nil {
		return err
	}
	defer conn.Close()
	stopConn := context.AfterFunc(ctx, func() { conn.Close() })
	defer stopConn()
	if _, err := conn.Write(make([]byte, probeBytes)); err != nil {
		return err
	}
	return <-received
}
