package testnet

import (
	"context"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
)

// ForTest returns a Net that lives as long as the test. Whatever is left of it
// afterwards fails the test; when the test failed, the ends of all logs are printed.
func ForTest(tb testing.TB, o Options) *Net {
	tb.Helper()
	// The test's own context ends before its clean-up, which still wants the logs.
	ctx := context.WithoutCancel(tb.Context())
	n, err := New(ctx, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			for _, service := range n.services {
				tb.Log(service.LogTail(tailLines))
			}
		}
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
		left, err := n.Leftovers(ctx)
		if err != nil {
			tb.Error(err)
		}
		for _, l := range left {
			tb.Errorf("left behind: %s", l)
		}
	})
	return n
}

// InNewNamespace runs the test's goroutine from here on in a network namespace of its own,
// which has no name and goes with the test. Goroutines that it starts are elsewhere.
func InNewNamespace(tb testing.TB) {
	tb.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	ns, err := netns.New()
	if err != nil {
		tb.Fatal("this test makes a network namespace; run it as root:", err)
	}
	tb.Cleanup(func() { ns.Close() })
}
