package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"weft/control"
	"weft/internal/config"
	"weft/internal/testnet"
	"weft/ipam"
)

// reconciler is a daemon that does nothing else, on a node without links.
type reconciler struct {
	*daemon
	t   *testing.T
	at  *testnet.Namespace
	log *bytes.Buffer
}

func newReconciler(t *testing.T) *reconciler {
	t.Helper()
	at, err := testnet.ForTest(t, testnet.Options{Prefix: "weftd-reconcile"}).AddNamespace(t.Context(), "node")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c := config.Config{StateDir: t.TempDir(), CNI: config.CNI{Name: "weft"}, IPAM: config.IPAM{Cooldown: time.Minute}}
	r := &reconciler{newDaemon(c, slog.New(slog.NewTextHandler(&log, nil)), nil), t, at, &log}
	r.engine.Begin(&control.Plan{}, nil, nil, nil)
	return r
}

// turn reconciles, and returns what is logged.
func (r *reconciler) turn() string {
	r.t.Helper()
	r.log.Reset()
	if err := r.at.Do(func() error { r.reconcile(r.t.Context()); return nil }); err != nil {
		r.t.Fatal(err)
	}
	return r.log.String()
}

func (r *reconciler) store(network string) *ipam.Store {
	r.t.Helper()
	s, err := ipam.Open(r.config.StateDir, network)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// lease records what a pod had whose veth is gone.
func (r *reconciler) lease(network, id, addr string) {
	r.t.Helper()
	l := ipam.Lease{Attachment: ipam.Attachment{ContainerID: id, IfName: "eth0"}, Addresses: []netip.Addr{netip.MustParseAddr(addr)},
		Pod: "default/" + id, Veth: "weft0123456789a"}
	if err := r.store(network).Record(r.t.Context(), l); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reconciler) expectLeases(held, cooling, freed, unreconciled int) {
	r.t.Helper()
	got, err := r.Leases()
	actions, open := r.leases.reconciled()
	if got.Leases != held || got.CoolingDown != cooling || err != nil || int(actions["freed"]) != freed || open != unreconciled {
		r.t.Errorf("%d held, %d cooling down, %v, done %v, %d not reconciled; want %d, %d, %d freed, %d",
			got.Leases, got.CoolingDown, err, actions, open, held, cooling, freed, unreconciled)
	}
}

func TestALeaseWhoseVethIsGoneIsFreedAndNamedOnce(t *testing.T) {
	r := newReconciler(t)
	r.expectLeases(0, 0, 0, 0)
	if got := r.turn(); got != "" {
		t.Errorf("nothing to do, but:\n%s", got)
	}
	r.lease("weft", "pod", "10.244.1.2")
	r.expectLeases(1, 0, 0, 0)
	want := `level=WARN msg="pod lease reconciled" action=freed container=pod interface=eth0 pod=default/pod addresses=[10.244.1.2] reason="its veth is gone"` + "\n"
	if got := r.turn(); !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("logged:\n%swant:\n%s", got, want)
	}
	if got := r.turn(); got != "" {
		t.Errorf("named again:\n%s", got)
	}
	r.expectLeases(0, 1, 1, 0)
}

// weftd logs a problem that only an operator can repair when it appears, and when it is gone.
func TestUnrepairableLeaseIsLogged(t *testing.T) {
	r := newReconciler(t)
	r.lease("one", "one", "10.9.0.1")
	r.lease("two", "two", "10.9.0.2")
	damage := func(network string) {
		if err := os.WriteFile(r.store(network).Path(), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(got string, want ...string) {
		t.Helper()
		if strings.Count(got, "\n") != len(want) {
			t.Errorf("logged:\n%swant %d lines", got, len(want))
		}
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("logged:\n%swant %s", got, w)
			}
		}
	}
	damage("one")
	damage("two")
	expect(r.turn(), "level=ERROR msg=\"pod lease not reconciled\" reason=\"list leases: "+r.store("one").Path(), r.store("two").Path())
	for range 20 {
		expect(r.turn())
	}
	if _, open := r.leases.reconciled(); open != 2 {
		t.Errorf("%d are not reconciled, want both", open)
	}
	shown := strings.Join(r.leases.status(nil).Unreconciled, "\n")
	for _, network := range []string{"one", "two"} {
		if !strings.Contains(shown, r.store(network).Path()) {
			t.Errorf("weft status would show no damaged file of network %s:\n%s", network, shown)
		}
	}
	if err := os.Remove(r.store("one").Path()); err != nil {
		t.Fatal(err)
	}
	expect(r.turn(), "action=rebuilt", "level=INFO msg=\"all pod leases reconciled\"") // as only one is left
	r.expectLeases(0, 0, 0, 0)
	damage("one")
	damage("two")
	expect(r.turn(), "level=ERROR", "level=ERROR")
}

func TestADamagedFileShowsBeforeTheNextReconcile(t *testing.T) {
	r := newReconciler(t)
	r.lease("weft", "pod", "10.244.1.2")
	if err := os.Truncate(r.store("weft").Path(), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Leases(); err == nil {
		t.Error("a damaged file was counted")
	}
	if shown := r.leases.status(nil).Unreconciled; len(shown) != 1 || !strings.Contains(shown[0], "damaged") {
		t.Errorf("weft status would show %q", shown)
	}
	if got := r.turn(); !strings.Contains(got, "action=rebuilt reason=") {
		t.Errorf("logged:\n%s", got)
	}
	if shown := r.leases.status(nil).Unreconciled; shown == nil || len(shown) != 0 {
		t.Errorf("weft status would show %q", shown)
	}
}

func TestReconcileThatCannotEvenLookIsLoggedOnce(t *testing.T) {
	r := newReconciler(t)
	if err := os.WriteFile(r.config.StateDir+"/ipam", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.turn(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "not a directory") {
		t.Errorf("logged:\n%s", got)
	}
	if got := r.turn(); got != "" {
		t.Errorf("logged again:\n%s", got)
	}
	if _, unreconciled := r.leases.reconciled(); unreconciled != 1 {
		t.Errorf("%d not reconciled, want 1", unreconciled)
	}
}

// weftd frees what a pod leaves behind while weftd runs.
func TestReconcilesWhileWeftdRuns(t *testing.T) {
	r := newReconciler(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- r.at.Do(func() error { return r.reconcileNowAndThen(ctx, 5*time.Millisecond) })
	}()
	for _, id := range []string{"a", "b"} {
		r.lease("weft", id, "10.244.1.2")
		err := testnet.Wait(t.Context(), "the lease to be freed", func(context.Context) error {
			if usage, err := r.Leases(); usage.Leases > 0 || err != nil {
				return os.ErrExist
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if log := r.log.String(); strings.Count(log, "\n") != 2 {
		t.Errorf("logged:\n%s", log)
	}
}
