package etcd

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"weft/internal/testnet"
)

// with returns the change of options that shows a certificate for a user.
func (r *rig) with(t *testing.T, user string) func(*Options) {
	t.Helper()
	cert, key, err := r.ClientCert(user)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *Options) { o.CAFile, o.CertFile, o.KeyFile = r.CAFile(), cert, key }
}

// addNodeUser adds a user and its role by the commands of docs/SECURITY.md.
func (r *rig) addNodeUser(t *testing.T, name string, password ...string) {
	t.Helper()
	role := "weft-node-" + name
	r.ctl(t, "role", "add", role)
	r.ctl(t, "role", "grant-permission", role, "read", "--prefix=true", "/weft/")
	r.ctl(t, "role", "grant-permission", role, "readwrite", "/weft/nodes/"+name)
	r.ctl(t, "role", "grant-permission", role, "readwrite", "/weft/podcidrs/v4/"+name)
	r.ctl(t, "role", "grant-permission", role, "readwrite", "/weft/podcidrs/v6/"+name)
	if len(password) > 0 {
		r.ctl(t, "user", "add", name+":"+password[0])
	} else {
		r.ctl(t, "user", "add", name, "--no-password")
	}
	r.ctl(t, "user", "grant-role", name, role)
}

func TestANodesUserWritesItsOwnKeysOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, testnet.EtcdOptions{Members: 1, TLS: true})
	r.addNodeUser(t, "node1")
	r.addNodeUser(t, "node3", "secret")
	r.ctl(t, "user", "add", "root", "--no-password")
	r.ctl(t, "user", "grant-role", "root", "root")
	r.ctl(t, "user", "add", "guest", "--no-password")
	r.ctl(t, "auth", "enable")

	dual := func(o *Options) { o.ClusterCIDRs = prefixes("10.244.0.0/16", "fd00::/48") }
	s := r.source(t, "node1", r.with(t, "node1"), dual)
	node1 := follow(t, s)
	own := nodeOf(t, node1.expectNodes(t, 0, "node1"), "node1")
	withPassword := func(password string) func(*Options) {
		return func(o *Options) { o.Username, o.Password = "node3", password }
	}
	node3 := follow(t, r.source(t, "node3", r.with(t, "guest"), dual, withPassword("secret")))
	node3.expectNodes(t, 0, "node1", "node3")

	client, err := s.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, key := range []string{"/weft/nodes/node2", "/weft/nodes/node3", "/weft/podcidrs/v4/node3", "/weft/podcidrs/v4/node11",
		"/weft/podcidrs/v4/" + own.PodCIDRs[0].String(), "/weft/x", "/other"} {
		if _, err := client.Put(within(t), key, "x"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("put %s: %v", key, err)
		}
		if _, err := client.Delete(within(t), key); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	if err := s.Remove(within(t), "node3"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("remove node3: %v", err)
	}

	for _, tt := range []struct {
		name    string
		changes []func(*Options)
		want    string
	}{
		{"node2", []func(*Options){r.with(t, "guest")}, "permission denied; a node's etcd user needs a role that may read the prefix /weft/, and write the keys /weft/nodes/node2, /weft/podcidrs/v4/node2 and /weft/podcidrs/v6/node2: see docs/SECURITY.md"},
		{"node2", []func(*Options){r.with(t, "node1")}, "register this node: etcdserver: permission denied"},
		{"node3", []func(*Options){r.with(t, "guest"), withPassword("wrong")}, "etcd does not accept the user node3 with this password"},
		{"node1", []func(*Options){r.with(t, "node1"), func(o *Options) { o.CAFile = o.CertFile }}, "etcd's certificate is not valid here; name the CA that signed it"},
		{"node1", []func(*Options){r.with(t, "node1"), func(o *Options) { o.CertFile, o.KeyFile = "", "" }}, "etcd rejects this node's certificate (there is none)"},
	} {
		f := follow(t, r.source(t, tt.name, append(tt.changes, dual)...))
		f.expectError(t, 0, tt.want)
		time.Sleep(time.Second)
		if f.stop(); f.count() > 2 {
			emits, _ := f.since(0)
			t.Errorf("%s: emitted %s", tt.want, tellAll(emits))
		}
	}
	if got := fmt.Sprint(namesOf(node1.last(t))); got != "[node1 node3]" {
		t.Errorf("in the end there are %s", got)
	}
}

func TestMissingEtcdUserIsReported(t *testing.T) {
	t.Parallel()
	r := newRig(t, testnet.EtcdOptions{Members: 1})
	r.ctl(t, "user", "add", "root:secret")
	r.ctl(t, "user", "grant-role", "root", "root")
	r.ctl(t, "auth", "enable")
	follow(t, r.source(t, "node1")).expectError(t, 0, "etcd requires authentication")
}
