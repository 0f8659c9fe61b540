package sources

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"

	"weft/control/kubernetes"
	"weft/internal/config"
	"weft/internal/owned"
	"weft/internal/warning"
)

// CheckFiles returns which of the files and folders that decide what weftd believes other users of the host
// can change: then they would be root here, or any node of the cluster. The list of nodes is
// checked whenever it is read.
func CheckFiles(path string, c config.Config) error {
	files := []string{path, c.RunDir, c.StateDir} // sockets and tickets; the last list of nodes, and leases
	if c.Encapsulation == config.EncapsulationSealed {
		files = append(files, filepath.Dir(c.KeyFile)) // nodekey checks the file
	}
	believed, _ := Files(c)
	var errs []error
	for _, f := range append(files, believed...) {
		if f != "" {
			errs = append(errs, owned.Check(f))
		}
	}
	return errors.Join(errs...)
}

// Files returns the files by which weftd knows its control source, and those of them that
// are secrets. Some may be empty.
func Files(c config.Config) (all, secrets []string) {
	switch e := c.Control.Etcd; c.Control.Source {
	case config.SourceEtcd:
		secrets = []string{e.KeyFile, e.PasswordFile}
		return append([]string{e.CAFile, e.CertFile}, secrets...), secrets
	case config.SourceKubernetes:
		if c.Control.Kubernetes.Kubeconfig != "" { // kubelet mounts a pod's
			return kubernetes.Files(c.Control.Kubernetes.Kubeconfig)
		}
	case config.SourceFile:
	}
	return nil, nil
}

// Secrets returns all that must not be shown of what a configuration names: the contents of the
// files, and what a kubeconfig itself holds. What can't be read is left out.
func Secrets(c config.Config) (secrets [][]byte) {
	_, files := Files(c)
	for _, path := range append(files, c.KeyFile) {
		if path == "" || path == c.Control.Kubernetes.Kubeconfig {
			continue
		}
		if text, err := os.ReadFile(path); err == nil {
			secrets = append(secrets, text)
		}
	}
	if c.Control.Source == config.SourceKubernetes {
		secrets = append(secrets, kubernetes.Secrets(c.Control.Kubernetes.Kubeconfig)...)
	}
	return secrets
}

// Warnings are about a control source that others can listen to, or pose as.
func Warnings(c config.Config) (all []warning.Warning) {
	_, secrets := Files(c)
	for _, f := range secrets {
		if f == "" {
			continue
		}
		if err := owned.Exposed(f); err != nil {
			all = append(all, warning.Warning{Code: "secret_readable", Text: err.Error()})
		}
	}
	if c.Control.Source != config.SourceEtcd {
		return all
	}
	for _, endpoint := range c.Control.Etcd.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" {
			continue
		}
		if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.IsLoopback() || u.Hostname() == "localhost" {
			continue
		}
		all = append(all, warning.Warning{Code: "etcd_in_clear", Text: fmt.Sprintf(
			"the connection to etcd is not encrypted (%s): an attacker on the path can change the list of nodes; have etcd serve TLS, and write https:// under control.etcd.endpoints", endpoint)})
	}
	return all
}
