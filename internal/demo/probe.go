package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"weft/internal/testnet"
)

const (
	probePort  = "7777"
	probeLimit = time.Minute // only for a hang to end

	// probeExchanges are made on each connection; the fastest one counts, because
	// the first also pays for finding neighbours.
	probeExchanges = 5
)

// servers are the TCP servers that answer probes: one in each namespace. A server
// first sends the client the address that it sees, then echoes.
type servers struct {
	mu        sync.Mutex
	listeners map[*testnet.Namespace]net.Listener
}

func newServers() *servers {
	return &servers{listeners: make(map[*testnet.Namespace]net.Listener)}
}

func (s *servers) start(ctx context.Context, ns *testnet.Namespace) error {
	listener, err := ns.Listen(ctx, "tcp", ":"+probePort)
	if err != nil {
		return fmt.Errorf("start a server: %w", err)
	}
	s.mu.Lock()
	s.listeners[ns] = listener
	s.mu.Unlock()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // It was stopped.
			}
			go answer(conn)
		}
	}()
	return nil
}

func (s *servers) stop(ns *testnet.Namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if listener, ok := s.listeners[ns]; ok {
		_ = listener.Close()
		delete(s.listeners, ns)
	}
}

func (s *servers) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, listener := range s.listeners {
		_ = listener.Close()
	}
	clear(s.listeners)
}

func answer(conn net.Conn) {
	defer conn.Close()
	peer := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr().Unmap()
	if _, err := fmt.Fprintln(conn, peer); err != nil {
		return
	}
	_, _ = io.Copy(conn, conn)
}

// serverAt is the server at an address.
func serverAt(addr netip.Addr) string { return net.JoinHostPort(addr.String(), probePort) }

// conversation is a connection to one of the servers.
type conversation struct {
	net.Conn
	reader *bufio.Reader

	// seenAs is the client's address as the server sees it.
	seenAs netip.Addr
}

// converse connects from a namespace to a server.
func converse(ctx context.Context, from *testnet.Namespace, server string) (*conversation, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	c := &conversation{Conn: conn, reader: bufio.NewReader(conn)}
	if err := c.readGreeting(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("from %s to %s: %w", from.Name(), server, err)
	}
	return c, nil
}

func (c *conversation) readGreeting() error {
	if err := c.SetDeadline(time.Now().Add(probeLimit)); err != nil {
		return err
	}
	greeting, err := c.reader.ReadString('\n')
	if err != nil {
		return err
	}
	c.seenAs, err = netip.ParseAddr(strings.TrimSpace(greeting))
	return err
}

// exchange sends text, waits for its echo and returns the round trip's time.
func (c *conversation) exchange(text string) (time.Duration, error) {
	echo := make([]byte, len(text))
	started := time.Now()
	if err := c.SetDeadline(started.Add(probeLimit)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(c.reader, echo); err != nil {
		return 0, err
	}
	took := time.Since(started)
	if string(echo) != text {
		return 0, fmt.Errorf("%q came back as %q", text, echo)
	}
	return took, nil
}

// probe returns the shortest round trip to a server, and as whom it sees the client.
func probe(ctx context.Context, from *testnet.Namespace, server string) (time.Duration, netip.Addr, error) {
	c, err := converse(ctx, from, server)
	if err != nil {
		return 0, netip.Addr{}, err
	}
	defer c.Close()
	shortest := probeLimit
	for range probeExchanges {
		took, err := c.exchange("w")
		if err != nil {
			return 0, c.seenAs, fmt.Errorf("from %s to %s: %w", from.Name(), server, err)
		}
		shortest = min(shortest, took)
	}
	return shortest, c.seenAs, nil
}
