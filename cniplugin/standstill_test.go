package cniplugin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// TestHangingAddDelaysOthersBriefly stops the thread of an ADD
// that is about to write the leases: it holds both locks then, the pod's and the leases'.
func TestHangingAddDelaysOthersBriefly(t *testing.T) {
	s := newSiege(t)
	s.plugin.lockWait = 50 * time.Millisecond
	held, other := s.args("held", s.pod.Path()), s.args("other", newNamespace(t).Path())
	meanwhile := []struct {
		name string
		do   func(*skel.CmdArgs) error
		args *skel.CmdArgs
		code uint
		err  error
	}{
		{name: "ADD of the same pod", do: s.plugin.Add, args: held, code: types.ErrTryAgainLater},
		{name: "DEL of the same pod", do: s.plugin.Del, args: held, code: types.ErrTryAgainLater},
		{name: "ADD of another pod", do: s.plugin.Add, args: other, code: types.ErrTryAgainLater},
		{name: "DEL of another pod", do: s.plugin.Del, args: other, code: types.ErrTryAgainLater},
		{name: "STATUS", do: s.plugin.Status, args: held},
	}
	stood := false
	end := s.trace(t, "ADD", held, func(c *call) verdict {
		writes := slices.Contains([]uint64{unix.SYS_WRITE, unix.SYS_PWRITE64}, c.nr)
		if stood || !writes || !strings.HasPrefix(c.object(), s.stateDir) {
			return verdict{}
		}
		stood = true
		for i := range meanwhile {
			m := &meanwhile[i]
			m.err = s.call(m.do, m.args)
		}
		return verdict{}
	})
	if !stood {
		t.Fatal("it wrote nothing below the state directory")
	}
	for _, m := range meanwhile {
		if got := codeOfError(m.err); got != m.code {
			t.Errorf("%s: code %d, want %d (%v)", m.name, got, m.code, m.err)
		}
	}
	if failure, err := end.failure(); failure != nil || err != nil {
		t.Errorf("when it went on: %v, %v", failure, err)
	}
	s.requireAttached(held, s.pod)
	s.mustDel(held)
	s.requireCalm()
}
