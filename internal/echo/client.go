package echo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Dial opens a connection, for example from within a namespace.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// TCP sends size bytes over a connection to a server, and returns from which address it saw them come,
// if all came back as they were sent.
func TCP(ctx context.Context, dial Dial, to netip.AddrPort, size int) (seen netip.Addr, err error) {
	conn, err := dial(ctx, "tcp", to.String())
	if err != nil {
		return seen, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answers := bufio.NewReader(conn)
	line, err := answers.ReadString('\n')
	if err != nil {
		return seen, fmt.Errorf("wait for the echo of %s: %w", to, because(ctx, err))
	}
	if seen, err = netip.ParseAddr(strings.TrimSpace(line)); err != nil {
		return seen, fmt.Errorf("%s does not answer like an echo of weft's: %w", to, err)
	}
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	writing := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		writing <- err
	}()
	got := make([]byte, size)
	n, err := io.ReadFull(answers, got)
	if err != nil {
		return seen, fmt.Errorf("%d of %d bytes came back: %w", n, size, because(ctx, err))
	}
	if err := <-writing; err != nil {
		return seen, fmt.Errorf("send: %w", err)
	}
	if !bytes.Equal(sent, got) {
		return seen, errors.New("what came back is not what was sent")
	}
	return seen, nil
}

// UDP sends a datagram of size bytes, MinDatagram at least, to a server, again each second until ctx is
// done, and returns from which address the server saw it come, if it came back as it was sent.
func UDP(ctx context.Context, dial Dial, to netip.AddrPort, size int) (seen netip.Addr, err error) {
	conn, err := dial(ctx, "udp", to.String())
	if err != nil {
		return seen, err
	}
	defer conn.Close()
	sent, got := make([]byte, size), make([]byte, size+1)
	_, _ = rand.Read(sent)
	for {
		if _, err := conn.Write(sent); err != nil {
			return seen, fmt.Errorf("send: %w", err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		n, err := conn.Read(got)
		if err != nil {
			if ctx.Err() != nil {
				return seen, fmt.Errorf("no answer from %s: %w", to, because(ctx, err))
			}
			continue
		}
		line, _, found := strings.Cut(string(got[:n]), "\n")
		if seen, err = netip.ParseAddr(line); !found || err != nil || n != size || !bytes.Equal(got[len(line)+1:n], sent[len(line)+1:]) {
			return seen, errors.New("what came back is not what was sent")
		}
		return seen, nil
	}
}

// because names the end of ctx in place of what it has caused.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("timeout")
	}
	return err
}
