// Package sources opens the control source that the configuration names, and says whether other
// users of the host, or of the network, can change what it says.
package sources

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"weft/control"
	"weft/control/etcd"
	"weft/control/file"
	"weft/control/kubernetes"
	"weft/internal/advertise"
	"weft/internal/config"
	"weft/internal/owned"
)

// Source is a control source that can also be asked once.
type Source interface {
	control.Source

	// Load returns what the source says now, and changes nothing there.
	Load(context.Context) (control.State, error)

	// Origin names the source: "/etc/weft/nodes.yaml", "etcd /weft", "kubernetes".
	Origin() string

	// LastContact returns when the source last answered, zero if it never did, and whether it
	// has answered the last time that it was asked.
	LastContact() (at time.Time, reachable bool)
}

// Open returns the source that c names. It is not asked yet, and needn't be there. A list of
// nodes that other users can change is refused when it is read. An error is a mistake in the
// configuration, or in a file that it names.
func Open(c config.Config) (Source, error) {
	switch c.Control.Source {
	case config.SourceEtcd:
		return openEtcd(c)
	case config.SourceKubernetes:
		return kubernetes.New(kubernetes.Options{
			Kubeconfig: c.Control.Kubernetes.Kubeconfig, Node: c.Node, Families: advertise.Families(c.Listen.Addr()), OneAddress: !c.Listen.Addr().IsUnspecified(), ClusterCIDRs: c.ClusterCIDRs,
			FlannelCompat: c.Control.Kubernetes.FlannelCompat, VNI: c.VXLAN.VNI,
		})
	default:
		list := file.New(c.Control.File)
		list.Check = owned.Check
		return list, nil
	}
}

func openEtcd(c config.Config) (Source, error) {
	e := c.Control.Etcd
	password := ""
	if e.PasswordFile != "" {
		data, err := os.ReadFile(e.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read the password for etcd (control.etcd.passwordFile): %w", err)
		}
		password = strings.TrimRight(string(data), "\r\n")
	}
	return etcd.New(etcd.Options{
		Endpoints: e.Endpoints, Prefix: e.Prefix,
		CAFile: e.CAFile, CertFile: e.CertFile, KeyFile: e.KeyFile,
		Username: e.Username, Password: password,
		Node: c.Node, ClusterCIDRs: c.ClusterCIDRs, MaskIPv4: e.MaskIPv4, MaskIPv6: e.MaskIPv6,
	})
}
