package kubernetes

import (
	"fmt"
	"net/netip"
	"net/url"

	"k8s.io/client-go/rest"
)

// Files returns the files by which a kubeconfig leads to an API server, itself included, and
// those of them that hold secrets. Some may be empty. New reports what can't be read.
func Files(kubeconfig string) (all, secrets []string) {
	secrets = []string{kubeconfig}
	config, err := clientConfig(kubeconfig)
	if err != nil {
		return secrets, secrets
	}
	secrets = append(secrets, config.BearerTokenFile, config.KeyFile)
	return append([]string{config.CAFile, config.CertFile}, secrets...), secrets
}

// Secrets returns the secrets that a kubeconfig itself holds.
func Secrets(kubeconfig string) [][]byte {
	config, err := clientConfig(kubeconfig)
	if err != nil {
		return nil
	}
	return [][]byte{[]byte(config.BearerToken), []byte(config.Password), config.KeyData}
}

// checkServer returns why anyone on the path could pose as the API server, take the token, and
// say which nodes there are.
func checkServer(kubeconfig string, config *rest.Config) error {
	switch {
	case config.Insecure:
		return fmt.Errorf("the kubeconfig %s has insecure-skip-tls-verify, so that anyone on the path could pose as the API server; write the cluster's certificate-authority instead", kubeconfig)
	case !rest.IsConfigTransportTLS(*config) && !isLoopback(config.Host):
		return fmt.Errorf("the kubeconfig %s has the server %s, to which everything goes in clear, the token too; write https:// and the cluster's certificate-authority", kubeconfig, config.Host)
	}
	return nil
}

// isLoopback says that a server is on this host.
func isLoopback(server string) bool {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" { // without a scheme
		u = &url.URL{Host: server}
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback() || u.Hostname() == "localhost"
}
