package testnet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// The addresses of an APIServer in a namespace of its own, and those that Services get.
// They are apart from those of a Cluster's nodes and pods.
var (
	apiServerAddrs = []netip.Addr{netip.MustParseAddr("192.168.77.150"), netip.MustParseAddr("fd00:77::96")}

	serviceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")}
)

const (
	apiServerPort = 6443

	// The groups to which Kubernetes' own roles are bound.
	adminGroup = "system:masters"
	nodesGroup = "system:nodes"

	// The files of certificates.
	controlPlaneCert  = "control-plane"
	kubeletClientCert = "kubelet-client"
	etcdUser          = "kube-apiserver"
)

// APIServerOptions describe an APIServer.
type APIServerOptions struct {
	// BinDir holds Kubernetes' programs; `make kubernetes-build` puts them into bin/kubernetes.
	BinDir string

	// EtcdMembers is the number of etcd's members; 0 means 1.
	EtcdMembers int

	// Audited are the users whose requests are logged.
	Audited []string

	// On is the node on which the control plane runs. With weft there, the API server reaches
	// pods, as it must for `kubectl proxy`. Nil means a namespace of its own, beside the nodes.
	On *Node
}

// APIServer is a real kube-apiserver in a namespace, over an etcd cluster. It
// speaks TLS, knows its clients by certificates and by the tokens of service accounts, and
// authorizes them by RBAC and, if they are nodes, by what belongs to the node. Stop, Kill
// and Start leave the data in etcd.
type APIServer struct {
	*Namespace
	*Service
	Etcd *Etcd

	addrs   []netip.Addr // one per family, IPv4 first
	dir     string
	binDir  string
	audited []string
	ca      *authority
}

// AddAPIServer starts etcd and an API server on the segment, and returns when it is ready.
// A Net has at most one. A Cluster on the same segment must have no more than 100 nodes.
func (n *Net) AddAPIServer(ctx context.Context, segment *Segment, o APIServerOptions) (*APIServer, error) {
	a, err := n.addAPIServer(ctx, segment, o)
	if err != nil {
		return nil, fmt.Errorf("add an API server: %w", err)
	}
	return a, nil
}

func (n *Net) addAPIServer(ctx context.Context, segment *Segment, o APIServerOptions) (*APIServer, error) {
	binDir, err := filepath.Abs(o.BinDir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(binDir, "kube-apiserver")); err != nil {
		return nil, fmt.Errorf("find Kubernetes' programs (make kubernetes-build builds them): %w", err)
	}
	a := &APIServer{dir: filepath.Join(n.Dir(), "apiserver"), binDir: binDir, audited: append([]string{"nobody"}, o.Audited...)} // none would be all
	if o.On != nil {
		a.Namespace = o.On.Namespace
		a.addrs, err = a.Addrs(UnderlayLink)
	} else {
		a.addrs = apiServerAddrs
		a.Namespace, err = n.addAPIServerNamespace(ctx, segment)
	}
	if err != nil {
		return nil, err
	}
	if err := a.makeCerts(); err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	if a.Etcd, err = n.AddEtcd(ctx, segment, EtcdOptions{Members: max(1, o.EtcdMembers), TLS: true}); err != nil {
		return nil, err
	}
	arguments, err := a.arguments()
	if err != nil {
		return nil, err
	}
	a.Service = a.newService("kube-apiserver", arguments, func(ctx context.Context) error {
		_, err := a.getTLS(ctx, a.ca.roots(), a.URL(), "/readyz")
		return err
	})
	return a, a.Start(ctx)
}

func (n *Net) addAPIServerNamespace(ctx context.Context, segment *Segment) (*Namespace, error) {
	namespace, err := n.AddNamespace(ctx, "apiserver")
	if err != nil {
		return nil, err
	}
	addrs := []netip.Prefix{netip.PrefixFrom(apiServerAddrs[0], 24), netip.PrefixFrom(apiServerAddrs[1], 64)}
	return namespace, segment.Attach(ctx, End{Namespace: namespace, Link: UnderlayLink, Addrs: addrs})
}

// newService is one of Kubernetes' programs in the API server's namespace.
func (a *APIServer) newService(program string, arguments []string, ready func(context.Context) error) *Service {
	return a.net.AddService(program, filepath.Join(a.dir, program+".log"), ready, func() (*exec.Cmd, error) {
		return a.Command(context.Background(), filepath.Join(a.binDir, program), arguments...), nil
	})
}

// makeCerts makes the CA of everybody here, the certificate that the control plane shows
// as a server, and the key that signs tokens.
func (a *APIServer) makeCerts() (err error) {
	if a.ca, err = newAuthority(filepath.Join(a.dir, "pki")); err != nil {
		return err
	}
	addrs := append(slices.Clone(a.addrs), netip.MustParseAddr("127.0.0.1"))
	for _, cidr := range serviceCIDRs {
		addrs = append(addrs, cidr.Addr().Next()) // the Service kubernetes
	}
	tokenKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return errors.Join(
		a.ca.issueServer(controlPlaneCert, addrs,
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
		writeKey(a.tokenKeyFile(), tokenKey))
}

func (a *APIServer) tokenKeyFile() string { return filepath.Join(a.dir, "pki", "service-accounts.key") }

func (a *APIServer) auditPolicy() string { return filepath.Join(a.dir, "audit.yaml") }

// AuditLog is where the requests of the users Audited stand, one event of audit.k8s.io/v1 a line.
func (a *APIServer) AuditLog() string { return filepath.Join(a.dir, "audit.log") }

func (a *APIServer) arguments() ([]string, error) {
	etcdCert, etcdKey, err := a.Etcd.ClientCert(etcdUser)
	if err != nil {
		return nil, err
	}
	if err := writeYAML(a.auditPolicy(), map[string]any{
		"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": []string{"RequestReceived"},
		"rules": []any{map[string]any{"level": "Metadata", "users": a.audited}, map[string]any{"level": "None"}},
	}); err != nil {
		return nil, err
	}
	cert, key := a.ca.files(controlPlaneCert)
	kubeletCert, kubeletKey, err := a.ca.client(kubeletClientCert, pkix.Name{CommonName: "kube-apiserver", Organization: []string{adminGroup}})
	if err != nil {
		return nil, err
	}
	return []string{
		"--advertise-address=" + a.addrs[0].String(),
		"--bind-address=::",
		fmt.Sprintf("--secure-port=%d", apiServerPort),
		"--tls-cert-file=" + cert, "--tls-private-key-file=" + key,
		"--client-ca-file=" + a.CAFile(),
		"--etcd-servers=" + strings.Join(a.Etcd.Endpoints(), ","),
		"--etcd-cafile=" + a.Etcd.CAFile(), "--etcd-certfile=" + etcdCert, "--etcd-keyfile=" + etcdKey,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction,ValidatingAdmissionPolicy",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + a.tokenKeyFile(), "--service-account-signing-key-file=" + a.tokenKeyFile(),
		"--service-cluster-ip-range=" + Join(serviceCIDRs, ","),
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + a.CAFile(),
		"--kubelet-client-certificate=" + kubeletCert, "--kubelet-client-key=" + kubeletKey,
		"--allow-privileged=true",
		"--audit-policy-file=" + a.auditPolicy(), "--audit-log-path=" + a.AuditLog(), "--audit-log-mode=blocking",
		"--profiling=false",
		// Ending, it would keep connections for a minute.
		"--shutdown-watch-termination-grace-period=1s",
	}, nil
}

// URL is the API server's, for those on its segment. Pods, and others behind a
// kube-proxy, also reach it as the Service kubernetes.
func (a *APIServer) URL() string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(a.addrs[0], apiServerPort))
}

// URL6 is its URL over IPv6.
func (a *APIServer) URL6() string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(a.addrs[1], apiServerPort))
}

// CAFile holds the certificate of the CA that signed the API server's, the kubelets' and
// the clients'.
func (a *APIServer) CAFile() string { return a.ca.certFile() }

// BinDir holds Kubernetes' programs.
func (a *APIServer) BinDir() string { return a.binDir }

// AdminKubeconfig returns the file of a kubeconfig for a user who may do everything.
func (a *APIServer) AdminKubeconfig() (path string, err error) {
	return a.Kubeconfig("admin", adminGroup)
}

// Kubeconfig returns the file of a kubeconfig for a user of some groups, who shows a
// certificate. That is made when a user is named for the first time, with the groups of then.
func (a *APIServer) Kubeconfig(user string, groups ...string) (path string, err error) {
	cert, key, err := a.ca.client(clientPrefix+user, pkix.Name{CommonName: user, Organization: groups})
	if err != nil {
		return "", err
	}
	credentials, err := fileContents(map[string]string{"client-certificate-data": cert, "client-key-data": key})
	if err != nil {
		return "", err
	}
	path = a.kubeconfigFile(user)
	return path, a.writeKubeconfig(path, credentials)
}

// TokenKubeconfig writes a kubeconfig with a token and returns its file, which has the
// name in its own. Another token for the same name replaces it, within a minute also for
// whoever runs with it: the token is in a file of its own, as kubelet has it for pods.
func (a *APIServer) TokenKubeconfig(name, token string) (path string, err error) {
	path = a.kubeconfigFile("token-" + name)
	file := strings.TrimSuffix(path, ".kubeconfig") + ".token"
	if err := renameio.WriteFile(file, []byte(token), 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", file, err)
	}
	return path, a.writeKubeconfig(path, map[string]any{"tokenFile": file})
}

func (a *APIServer) kubeconfigFile(name string) string {
	return filepath.Join(a.dir, strings.ReplaceAll(name, ":", "-")+".kubeconfig")
}

// NodeKubeconfig returns the file of a kubeconfig with the rights of a node's kubelet.
func (a *APIServer) NodeKubeconfig(node string) (path string, err error) {
	return a.Kubeconfig("system:node:"+node, nodesGroup)
}
