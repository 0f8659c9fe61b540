package system

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"weft/internal/testnet"
)

const (
	wireguardLink = "wg0"
	wireguardPort = 51820
)

// connectWireGuard has wireguard-go carry pods' packets, on its own TUN device.
func connectWireGuard(ctx context.Context, s *site) (*Path, error) {
	p, err := s.kernelNodes(ctx)
	if err != nil {
		return nil, err
	}
	p.device = wireguardLink
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return nil, fmt.Errorf("make a WireGuard key: %w", err)
		}
	}
	var sockets [2]string
	for i, n := range p.Nodes {
		if sockets[i], err = s.startWireGuard(ctx, n, fmt.Sprintf("node%d", i+1)); err != nil {
			return nil, err
		}
		if err := configureWireGuard(ctx, sockets[i], keys[i], keys[1-i].PublicKey(), 1-i); err != nil {
			return nil, fmt.Errorf("configure wireguard-go on node%d: %w", i+1, err)
		}
		err := n.ExecAll(ctx,
			fmt.Sprintf("ip link set %s mtu %d up", wireguardLink, InnerMTU),
			fmt.Sprintf("ip route add %s dev %s", podCIDR[1-i], wireguardLink))
		if err != nil {
			return nil, err
		}
	}
	p.verify = func(ctx context.Context, _ Counters) error { return verifyWireGuard(ctx, sockets) }
	return p, nil
}

// startWireGuard starts the program in the node and returns the path of the socket
// that configures it. wireguard-go puts it into /var/run/wireguard, whatever the
// network namespace. In a mount namespace of its own, that is a folder of the Net:
// two nodes don't meet there, and the socket goes away with the Net.
func (s *site) startWireGuard(ctx context.Context, n *testnet.Namespace, name string) (socket string, err error) {
	dir := filepath.Join(s.net.Dir(), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a folder for wireguard-go: %w", err)
	}
	socket = filepath.Join(dir, "wireguard", wireguardLink+".sock")
	answers := func(ctx context.Context) error {
		_, err := askWireGuard(ctx, socket, "get=1\n")
		return err
	}
	return socket, s.net.AddService("wireguard-go on "+name, filepath.Join(dir, "log"), answers, func() (*exec.Cmd, error) {
		return n.Command(context.Background(), "unshare", "--mount", "--", "sh", "-c",
			`mount --bind "$1" /var/run && exec "$2" --foreground "$3"`, "sh", dir, s.programs.WireGuard, wireguardLink), nil
	}).Start(ctx)
}

// configureWireGuard gives a node its key, and the other node as its peer.
func configureWireGuard(ctx context.Context, socket string, own *ecdh.PrivateKey, other *ecdh.PublicKey, peer int) error {
	_, err := askWireGuard(ctx, socket, fmt.Sprintf(
		"set=1\nprivate_key=%x\nlisten_port=%d\npublic_key=%x\nendpoint=%s:%d\nallowed_ip=%s\n",
		own.Bytes(), wireguardPort, other.Bytes(), underlay[peer].Addr(), wireguardPort, podCIDR[peer]))
	return err
}

// verifyWireGuard checks that both ends have agreed on keys and moved pods' bytes.
func verifyWireGuard(ctx context.Context, sockets [2]string) error {
	for i, socket := range sockets {
		answer, err := askWireGuard(ctx, socket, "get=1\n")
		if err != nil {
			return err
		}
		for _, key := range []string{"last_handshake_time_sec", "tx_bytes", "rx_bytes"} {
			if value := answer[key]; value == "" || value == "0" {
				return fmt.Errorf("pods talk, but %s of wireguard-go on node%d is %q", key, i+1, value)
			}
		}
	}
	return nil
}

// askWireGuard does one operation of https://www.wireguard.com/xplatform and returns
// the lines of the answer.
func askWireGuard(ctx context.Context, socket, request string) (map[string]string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, request+"\n"); err != nil {
		return nil, fmt.Errorf("ask wireguard-go: %w", err)
	}
	return parseAnswer(conn)
}

// parseAnswer reads lines of key=value up to an empty one.
func parseAnswer(r io.Reader) (map[string]string, error) {
	answer := map[string]string{}
	for lines := bufio.NewScanner(r); lines.Scan() && lines.Text() != ""; {
		key, value, _ := strings.Cut(lines.Text(), "=")
		answer[key] = value
	}
	switch answer["errno"] {
	case "0":
		return answer, nil
	case "":
		return nil, errors.New("wireguard-go gave no whole answer")
	}
	return nil, fmt.Errorf("wireguard-go refused: errno %s", answer["errno"])
}
