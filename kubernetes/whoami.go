package kubernetes

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	core "k8s.io/api/core/v1"
)

// Answer is what whoami of testnet.Image says.
type Answer struct {
	// Server is the host name of the server: a pod's is its name.
	Server string

	// Client is the address that the question came from, as the server sees it.
	Client netip.Addr
}

// ParseAnswer reads what whoami has sent.
func ParseAnswer(text string) (a Answer, err error) {
	server, client, _ := strings.Cut(strings.TrimSpace(text), " ")
	a.Server = server
	if a.Client, err = netip.ParseAddr(strings.Trim(client, "[]")); err != nil {
		return Answer{}, fmt.Errorf("the answer is %q", text)
	}
	a.Client = a.Client.Unmap()
	return a, nil
}

// WhoamiURL is where the web server of a pod, a Service or a port of a node, given as
// address and port, reports the client's address.
func WhoamiURL(server string) string { return "http://" + server + "/cgi-bin/whoami" }

// AskFrom has a pod ask a web server, and returns its answer.
func (c *Client) AskFrom(ctx context.Context, pod *core.Pod, server string) (Answer, error) {
	out, err := c.Exec(ctx, pod.Namespace, pod.Name, "wget", "-q", "-O", "-", WhoamiURL(server))
	if err != nil {
		return Answer{}, err
	}
	return ParseAnswer(out)
}
