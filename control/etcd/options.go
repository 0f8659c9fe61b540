package etcd

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"weft/internal/family"
	"weft/internal/strict"
)

// Options say where etcd is, who this node is, and what it claims.
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

// check returns all that is wrong with the options.
func (o *Options) check() error {
	errs := []error{strict.CheckNodeName(o.Node), o.checkEndpoints(), o.checkPrefix()}
	if len(o.ClusterCIDRs) == 0 {
		errs = append(errs, errors.New("there are no cluster CIDRs to claim a pod CIDR from; write them under clusterCIDRs"))
	}
	for _, f := range o.families() {
		errs = append(errs, o.checkMask(f))
	}
	if o.Username == "" && o.Password != "" {
		errs = append(errs, errors.New("there is an etcd password without a user name; write both or none"))
	}
	_, err := o.tlsConfig()
	return errors.Join(append(errs, err)...)
}

func (o *Options) checkEndpoints() error {
	if len(o.Endpoints) == 0 {
		return errors.New("there are no etcd endpoints; write one for each member, like https://192.168.77.101:2379")
	}
	for _, endpoint := range o.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.Hostname() == "" {
			return fmt.Errorf("%s is not an etcd endpoint; write it like https://192.168.77.101:2379", strict.Quote(endpoint))
		}
		if (u.Scheme == "https") != o.secure() {
			return fmt.Errorf("some etcd endpoints are http, and some https, such as %s; write one kind", strict.Quote(endpoint))
		}
	}
	if !o.secure() && o.CAFile+o.CertFile+o.KeyFile != "" {
		return fmt.Errorf("there are files for TLS, but the etcd endpoint %s is http; write https, or remove the files", strict.Quote(o.Endpoints[0]))
	}
	return nil
}

func (o *Options) secure() bool {
	return len(o.Endpoints) > 0 && strings.HasPrefix(o.Endpoints[0], "https:")
}

func (o *Options) checkPrefix() error {
	if !strings.HasPrefix(o.Prefix, "/") || strings.HasSuffix(o.Prefix, "/") || strings.Contains(o.Prefix, "//") {
		return fmt.Errorf("%s is not a prefix of etcd keys; write it like /weft", strict.Quote(o.Prefix))
	}
	return nil
}

// checkMask checks that some cluster CIDR of the family has room for the pod CIDR, and that
// for a pod.
func (o *Options) checkMask(f family.Family) error {
	const hostBits = 2
	mask, longest := o.mask(f), f.Unspecified().BitLen()-hostBits
	if mask < 1 || mask > longest {
		return fmt.Errorf("the length of this node's %s pod CIDR is %d; write one from 1 to %d", f, mask, longest)
	}
	var cidrs []string
	for _, c := range o.clusterCIDRs(f) {
		if c.Bits() <= mask {
			return nil
		}
		cidrs = append(cidrs, c.String())
	}
	return fmt.Errorf("this node's %s pod CIDR has the length /%d, which is wider than the cluster CIDR %s; write a longer one", f, mask, strings.Join(cidrs, ", "))
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
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, fmt.Errorf("of this node's certificate for etcd and its key, only %s%s is named; name both or none", o.CertFile, o.KeyFile)
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

// families are those that the cluster CIDRs have.
func (o *Options) families() []family.Family {
	var all []family.Family
	for _, f := range family.All {
		if len(o.clusterCIDRs(f)) > 0 {
			all = append(all, f)
		}
	}
	return all
}

func (o *Options) clusterCIDRs(f family.Family) []netip.Prefix { return f.Prefixes(o.ClusterCIDRs) }

func (o *Options) mask(f family.Family) int {
	if f == family.IPv4 {
		return o.MaskIPv4
	}
	return o.MaskIPv6
}

// inCluster reports whether the CIDR lies in one of the cluster CIDRs.
func (o *Options) inCluster(p netip.Prefix) bool {
	for _, c := range o.ClusterCIDRs {
		if c.Bits() <= p.Bits() && c.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

func (o *Options) folder() string              { return o.Prefix + "/" }
func (o *Options) entryKey(name string) string { return o.Prefix + "/nodes/" + name }
func (o *Options) claimsKey(f family.Family) string {
	return o.Prefix + "/podcidrs/v" + f.Digit() + "/"
}
func (o *Options) claimKey(f family.Family, name string) string { return o.claimsKey(f) + name }
