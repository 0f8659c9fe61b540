package testnet

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// serverName is what the files of the members' own certificate are called. A client's
// begin with clientPrefix.
const (
	serverName   = "server"
	clientPrefix = "client-"
)

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
	return e.ca.client(clientPrefix+name, pkix.Name{CommonName: name})
}
