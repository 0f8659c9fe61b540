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
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// serverName is what the files of the members' own certificate are called. No
// client's files are, because a client's name is not empty.
const serverName = ""

// authority makes the certificates of an etcd cluster.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu sync.Mutex // held while files are made
}

// makeAuthority makes the CA, and the one certificate that all members show.
func (e *Etcd) makeAuthority() error {
	ca, err := newAuthority(filepath.Join(e.dir, "pki"))
	if err != nil {
		return fmt.Errorf("make the CA: %w", err)
	}
	// It has no common name: etcd's own gateway shows it as a client, and would be
	// taken for the user of that name.
	server := template(pkix.Name{})
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, m := range e.members {
		server.IPAddresses = append(server.IPAddresses, net.IP(m.addr.AsSlice()))
	}
	if err := ca.issue(serverName, server); err != nil {
		return fmt.Errorf("make the members' certificate: %w", err)
	}
	e.ca = ca
	return nil
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

func (a *authority) files(name string) (certFile, keyFile string) {
	base := filepath.Join(a.dir, "server")
	if name != serverName {
		base = filepath.Join(a.dir, "client-"+name)
	}
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
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	certFile, keyFile := a.files(name)
	return errors.Join(writePEM(keyFile, "EC PRIVATE KEY", keyDER), writePEM(certFile, "CERTIFICATE", der))
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// CAFile holds the certificate of the CA that signed the members' and the clients'.
// It is empty without TLS.
func (e *Etcd) CAFile() string {
	if e.ca == nil {
		return ""
	}
	return e.ca.certFile()
}

// ClientCert returns the files of a certificate with this common name, which etcd
// takes for the user's name. They are made once for each name.
func (e *Etcd) ClientCert(name string) (certFile, keyFile string, err error) {
	if e.ca == nil {
		return "", "", errors.New("make a client's certificate: this etcd speaks no TLS")
	}
	if name == "" || strings.ContainsRune(name, filepath.Separator) {
		return "", "", fmt.Errorf("make a client's certificate: %q can't be part of a file's name", name)
	}
	e.ca.mu.Lock()
	defer e.ca.mu.Unlock()
	certFile, keyFile = e.ca.files(name)
	if _, err := os.Stat(certFile); !errors.Is(err, fs.ErrNotExist) {
		return certFile, keyFile, err
	}
	client := template(pkix.Name{CommonName: name})
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if err := e.ca.issue(name, client); err != nil {
		return "", "", fmt.Errorf("make a certificate for client %s: %w", name, err)
	}
	return certFile, keyFile, nil
}
