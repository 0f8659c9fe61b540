package testnet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// authority makes the certificates of an etcd cluster, or of a Kubernetes.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu sync.Mutex // held while files are made
}

func newAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := template(pkix.Name{CommonName: "testnet CA"})
	root.IsCA, root.BasicConstraintsValid = true, true
	root.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca := &authority{dir: dir, key: key}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return ca, writePEM(ca.certFile(), "CERTIFICATE", der)
}

func template(subject pkix.Name) *x509.Certificate {
	return &x509.Certificate{
		Subject:   subject,
		NotBefore: time.Now().Add(-time.Hour), // for a test that sets its clock back
		NotAfter:  time.Now().AddDate(1, 0, 0),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
}

func (a *authority) certFile() string { return filepath.Join(a.dir, "ca.crt") }

// files are where the certificate of this name and its key are, or will be.
func (a *authority) files(name string) (certFile, keyFile string) {
	base := filepath.Join(a.dir, name)
	return base + ".crt", base + ".key"
}

// issue makes a key and a certificate for it, and writes both.
func (a *authority) issue(name string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	certFile, keyFile := a.files(name)
	return errors.Join(writeKey(keyFile, key), writePEM(certFile, "CERTIFICATE", der))
}

// issueServer is issue for a server with these addresses and names.
func (a *authority) issueServer(name string, addrs []netip.Addr, dnsNames ...string) error {
	server := template(pkix.Name{CommonName: name})
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.DNSNames = dnsNames
	for _, addr := range addrs {
		server.IPAddresses = append(server.IPAddresses, addr.AsSlice())
	}
	return a.issue(name, server)
}

// client makes a certificate for a client, once for each name, and returns its files.
func (a *authority) client(name string, subject pkix.Name) (certFile, keyFile string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	certFile, keyFile = a.files(name)
	if _, err := os.Stat(certFile); !errors.Is(err, fs.ErrNotExist) {
		return certFile, keyFile, err
	}
	client := template(subject)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if err := a.issue(name, client); err != nil {
		return "", "", fmt.Errorf("make a certificate for %s: %w", subject.CommonName, err)
	}
	return certFile, keyFile, nil
}

// roots trusts the authority alone.
func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
