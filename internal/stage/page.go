package stage

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"weft/internal/testnet"
)

// forwardArgument has the demo's program be what servePage starts.
const forwardArgument = "forward-page"

// servePage makes a node's status page reachable from the host, and returns its address. weftd serves it
// on the loopback of the node's namespace, so a process there takes the connections that a socket of the
// host accepts. It goes with the namespace.
func (d *Demo) servePage(ctx context.Context, node *testnet.Node) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close() // the process has it
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return "", err
	}
	defer socket.Close()
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	address := fmt.Sprintf("http://%s/", listener.Addr())
	forwarder := d.Net.AddService("the way to the status page", filepath.Join(node.Dir(), "page.log"),
		func(ctx context.Context) error { return answers(ctx, address) },
		func() (*exec.Cmd, error) {
			c := node.Command(context.Background(), program, forwardArgument)
			c.ExtraFiles = []*os.File{socket}
			return c, nil
		})
	if err := forwarder.Start(ctx); err != nil {
		return "", d.Concerning(err, node)
	}
	return address, nil
}

func answers(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, response.Status)
	}
	return nil
}

// forwardPage is the process that servePage starts.
func forwardPage() error {
	const socket = 3 // the first of ExtraFiles
	listener, err := net.FileListener(os.NewFile(socket, "listener"))
	if err != nil {
		return fmt.Errorf("take over the listener: %w", err)
	}
	return testnet.Forward(context.Background(), listener, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", testnet.MetricsAddress)
	})
}
