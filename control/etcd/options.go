package etcd

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"weft/internal/family"
)

// Options say where etcd is, who this node is, and what it claims. internal/config has checked
// them; only what is in the files is checked here.
type Options struct {
	// Endpoints are the URLs of etcd's members, all http or all https.
	Endpoints []string

	// Prefix is what all keys begin with: "/weft".
	Prefix string

	// CAFile, CertFile and KeyFile are PEM files. Without CAFile the host's authorities
	// are trusted. The certificate is read again for every connection, the CA for
	// every session, which lasts an hour at most.
	CAFile, CertFile, KeyFile string

	Username, Password string // optional

	// Node is this node's name.
	Node string

	ClusterCIDRs []netip.Prefix

	// MaskIPv4 and MaskIPv6 are the lengths of the pod CIDRs that this node claims, one
	// in each family that the cluster CIDRs have.
	MaskIPv4, MaskIPv6 int
}

func (o *Options) secure() bool {
	return len(o.Endpoints) > 0 && strings.HasPrefix(o.Endpoints[0], "https:")
}

func (o *Options) readCA() ([]byte, error) {
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read etcd's CA: %w; write it, or name another file", err)
	}
	return pem, nil
}

// tlsConfig reads the files; nil without TLS.
func (o *Options) tlsConfig() (*tls.Config, error) {
	if !o.secure() {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := o.readCA()
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: there is no certificate in it; write the PEM of the CA that signed those of etcd's members", o.CAFile)
		}
	}
	if o.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("read this node's certificate for etcd, %s, and its key, %s: %w; write the PEM of both", o.CertFile, o.KeyFile, err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}

// identity returns the identity of the cluster: its CA's, which stays when members are
// replaced, or without one its members'.
func (o *Options) identity() (string, error) {
	if o.CAFile == "" {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(o.Endpoints)), " ")))), nil
	}
	pem, err := o.readCA()
	return fmt.Sprintf("%x", sha256.Sum256(pem)), err
}

func (o *Options) clusterCIDRs(f family.Family) []netip.Prefix { return f.Prefixes(o.ClusterCIDRs) }

func (o *Options) mask(f family.Family) int {
	if f == family.IPv4 {
		return o.MaskIPv4
	}
	return o.MaskIPv6
}

func (o *Options) folder() string              { return o.Prefix + "/" }
func (o *Options) entryKey(name string) string { return o.Prefix + "/nodes/" + name }
func (o *Options) claimsKey(f family.Family) string {
	return o.Prefix + "/podcidrs/v" + f.Digit() + "/"
}
func (o *Options) claimKey(f family.Family, name string) string { return o.claimsKey(f) + name }
