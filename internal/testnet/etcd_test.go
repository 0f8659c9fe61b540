package testnet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newTestEtcd(t *testing.T, o EtcdOptions) (*Etcd, *Segment) {
	t.Helper()
	n := newTestNet(t)
	segment, err := n.AddSegment(t.Context(), "segment", Wire{})
	if err != nil {
		t.Fatal(err)
	}
	etcd, err := n.AddEtcd(t.Context(), segment, o)
	if err != nil {
		t.Fatal(err)
	}
	return etcd, segment
}

func mustCtl(t *testing.T, e *Etcd, args ...string) string {
	t.Helper()
	out, err := e.Ctl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func mustLead(t *testing.T, e *Etcd) int {
	t.Helper()
	leader, err := e.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return leader
}

// mustCatchUp fails the test unless the member itself soon has this value.
func mustCatchUp(t *testing.T, e *Etcd, member int, key, want string) {
	t.Helper()
	err := Wait(t.Context(), "the member to catch up", func(ctx context.Context) error {
		got, err := readAt(ctx, e, member, key)
		if err == nil && got != want {
			err = fmt.Errorf("%s is %q there, not %q", key, got, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// readAt returns what the member itself knows, without asking the others.
func readAt(ctx context.Context, e *Etcd, member int, key string) (string, error) {
	out, err := e.CtlAt(ctx, member, "get", "--consistency=s", "--print-value-only", key)
	return strings.TrimSpace(out), err
}

func TestEtcdOutlivesItsLeader(t *testing.T) {
	e, _ := newTestEtcd(t, EtcdOptions{Members: 3, TLS: true})
	mustCtl(t, e, "put", "a", "1")
	old := mustLead(t, e)

	e.Kill(old)

	if leader := mustLead(t, e); leader == old {
		t.Errorf("member %d leads though it was killed", leader)
	}
	if got := mustCtl(t, e, "get", "--print-value-only", "a"); got != "1" {
		t.Errorf("a is %q after the leader's death, not 1", got)
	}
	mustCtl(t, e, "put", "a", "2")
	if err := e.Start(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	mustCatchUp(t, e, old, "a", "2")
	if err := e.Start(t.Context(), old); err == nil {
		t.Error("started twice")
	}
}

func TestPartitionedEtcdMemberIsBehindAndCatchesUp(t *testing.T) {
	e, _ := newTestEtcd(t, EtcdOptions{Members: 3})
	mustCtl(t, e, "put", "a", "before")
	old := mustLead(t, e)
	mustCatchUp(t, e, old, "a", "before")

	if err := e.Partition(t.Context(), old); err != nil {
		t.Fatal(err)
	}

	if leader := mustLead(t, e); leader == old {
		t.Errorf("member %d leads though it is cut off", leader)
	}
	mustCtl(t, e, "put", "a", "after")
	if got, err := readAt(t.Context(), e, old, "a"); err != nil || got != "before" {
		t.Errorf("the member that was cut off has %q, %v", got, err)
	}
	if err := e.Heal(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	mustCatchUp(t, e, old, "a", "after")
}

func TestEtcdKnowsClientsByCertificate(t *testing.T) {
	e, segment := newTestEtcd(t, EtcdOptions{Members: 1, TLS: true})
	client := addNamespace(t, segment.net, "client")
	addr := netip.MustParsePrefix("192.168.77.1/24")
	if err := segment.Attach(t.Context(), End{client, "eth0", []netip.Prefix{addr}}); err != nil {
		t.Fatal(err)
	}
	if err := greet(t, e, client); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a client without certificate: %v", err)
	}
	cert, key, err := e.ClientCert("stranger")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := greet(t, e, client, pair); err != nil {
		t.Errorf("a client with a certificate: %v", err)
	}

	mustCtl(t, e, "user", "add", "root", "--no-password")
	mustCtl(t, e, "user", "grant-role", "root", "root")
	mustCtl(t, e, "user", "add", "stranger", "--no-password")
	mustCtl(t, e, "auth", "enable")
	mustCtl(t, e, "put", "a", "1")
	_, err = client.Exec(t.Context(), "etcdctl", "--endpoints="+e.Endpoints()[0],
		"--cacert="+e.CAFile(), "--cert="+cert, "--key="+key, "get", "a")
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a user without a role reads: %v", err)
	}
}

// greet asks the first member for its version by HTTPS, from a client's namespace.
func greet(t *testing.T, e *Etcd, from *Namespace, certs ...tls.Certificate) error {
	t.Helper()
	ca, err := os.ReadFile(e.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	ctx, cancel := context.WithTimeout(t.Context(), WaitLimit)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", strings.TrimPrefix(e.Endpoints()[0], "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(WaitLimit)); err != nil {
		t.Fatal(err)
	}
	secured := tls.Client(conn, &tls.Config{ServerName: "192.168.77.101", RootCAs: roots, Certificates: certs})
	if _, err := fmt.Fprint(secured, "GET /version HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	// With TLS 1.3 the refusal comes when the client thinks that it is connected.
	_, err = secured.Read(make([]byte, 1))
	return err
}

func TestCompactedEtcdForgetsWhatWas(t *testing.T) {
	e, _ := newTestEtcd(t, EtcdOptions{Members: 1})
	for _, value := range []string{"1", "2", "3"} {
		mustCtl(t, e, "put", "a", value)
	}
	for range 2 { // the second time there is nothing to do
		if err := e.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := e.Ctl(t.Context(), "get", "--rev=2", "a"); err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Errorf("revision 2 is still there: %q, %v", out, err)
	}
	if got := mustCtl(t, e, "get", "--print-value-only", "a"); got != "3" {
		t.Errorf("a is %q, not 3", got)
	}
	if _, _, err := e.ClientCert("root"); err == nil || e.CAFile() != "" {
		t.Errorf("certificates without TLS: CA %q, %v", e.CAFile(), err)
	}
}

func TestEtcdAboveItsQuotaTakesNoWrites(t *testing.T) {
	e, _ := newTestEtcd(t, EtcdOptions{Members: 1, QuotaBytes: 16 << 10})
	if _, err := e.Ctl(t.Context(), "put", "a", "1"); err == nil || !strings.Contains(err.Error(), "space exceeded") {
		t.Errorf("got %v", err)
	}
}

func TestEtcdThatFailsAtStartIsReportedWithItsLog(t *testing.T) {
	e, _ := newTestEtcd(t, EtcdOptions{Members: 1})
	e.Kill(1)
	data := filepath.Join(e.members[0].dir, "data")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	err := e.Start(t.Context(), 1)

	if err == nil || !strings.Contains(err.Error(), "it ended") || !strings.Contains(err.Error(), "the end of the log of etcd1") {
		t.Errorf("got %v", err)
	}
}

func TestEtcdOfNoOrTooManyMembersIsRefused(t *testing.T) {
	for _, members := range []int{0, 6} {
		if _, err := newTestNet(t).AddEtcd(t.Context(), nil, EtcdOptions{Members: members}); err == nil {
			t.Errorf("%d members", members)
		}
	}
}
