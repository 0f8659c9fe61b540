package sources

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"weft/control"
	"weft/internal/config"
)

// write writes a file, and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newCA returns the path of a new CA's certificate.
func newCA(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func identity(t *testing.T, c config.Config) string {
	t.Helper()
	c.Node, c.ClusterCIDRs = "node1", []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	source, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return source.(control.Registry).Identity()
}

const noCA = ""

func inEtcd(t *testing.T, ca string, addresses ...string) string {
	var c config.Config
	c.Control.Source = config.SourceEtcd
	c.Control.Etcd.Prefix, c.Control.Etcd.MaskIPv4, c.Control.Etcd.CAFile = "/weft", 24, ca
	for _, a := range addresses {
		c.Control.Etcd.Endpoints = append(c.Control.Etcd.Endpoints, "https://"+a+":2379")
	}
	return identity(t, c)
}

func inKubernetes(t *testing.T, ca string, addresses ...string) string {
	authority := ""
	if ca != noCA {
		authority = ", certificate-authority: " + ca
	}
	var c config.Config
	c.Control.Source = config.SourceKubernetes
	c.Control.Kubernetes.Kubeconfig = write(t, "kubeconfig", fmt.Sprintf(`
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://%s:6443"%s}}]
contexts: [{name: x, context: {cluster: c}}]
current-context: x
`, addresses[0], authority))
	return identity(t, c)
}

// TestAClusterIsKnownByItsCA: whatever its addresses are. Without a CA it is known by these.
func TestAClusterIsKnownByItsCA(t *testing.T) {
	const here, there = "192.168.77.101", "192.168.77.102"
	ours, theirs := newCA(t), newCA(t)
	for name, of := range map[string]func(t *testing.T, ca string, addresses ...string) string{"etcd": inEtcd, "Kubernetes": inKubernetes} {
		t.Run(name, func(t *testing.T) {
			if of(t, ours, here) != of(t, ours, there) {
				t.Error("with another address it is another cluster")
			}
			if of(t, ours, here) == of(t, theirs, here) {
				t.Error("with another CA it is the same cluster")
			}
			bare := of(t, noCA, here)
			if again := of(t, noCA, here); again != bare {
				t.Error("without a CA it is always another cluster")
			}
			if bare == of(t, noCA, there) || bare == of(t, ours, here) {
				t.Error("without a CA it is the same cluster at another address, or as one with a CA")
			}
		})
	}
	if inEtcd(t, noCA, here, there) != inEtcd(t, noCA, there, here) {
		t.Error("with its members in another order it is another cluster")
	}
}
