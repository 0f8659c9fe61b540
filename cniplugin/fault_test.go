package cniplugin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// maxFailures is the most errors that any call of systemCalls has.
const maxFailures = 4

// fault chooses a call and its error: of the calls that have more than which errors, the
// at-th gets the one with that index.
type fault struct {
	which, at int
	// object and errno are what it came to.
	object string
	errno  unix.Errno
}

func (f *fault) judge(c *call) verdict {
	failures := c.failures()
	if len(failures) <= f.which {
		return verdict{}
	}
	if f.at--; f.at > 0 {
		return verdict{}
	}
	f.object, f.errno = c.object(), failures[f.which]
	return verdict{errno: f.errno}
}

// failEverywhere fails command at each of its calls (without testnet.Torture: at a sample), with each error that the call can
// have, on a fresh container. Before each comes prepare; after each, check sees what the
// plugin said, and DEL must leave nothing.
func failEverywhere(t *testing.T, command string, prepare func(*siege, *skel.CmdArgs), check func(*siege, *skel.CmdArgs, *fault, *ending)) {
	t.Helper()
	for which := range maxFailures {
		t.Run(fmt.Sprintf("error %d of each call", which+1), func(t *testing.T) {
			t.Parallel()
			s := newSiege(t)
			first, step := sample()
			for s.at = first; ; s.at += step {
				args := s.args(fmt.Sprintf("container-%d", s.at), s.pod.Path())
				s.struck = fmt.Sprintf("before fault %d", s.at)
				prepare(s, args)
				f := &fault{which: which, at: s.at}
				end := s.attack(command, args, f.judge)
				if end != nil {
					check(s, args, f, end)
				}
				s.mustDel(args)
				s.requireCalm()
				if end == nil {
					break
				}
			}
			t.Logf("%s failed at %d of %d system calls, from number %d in steps of %d", command, s.hits, s.at-1, first, step)
			if testnet.Torture && s.hits == 0 {
				t.Error("no call failed")
			}
		})
	}
}

// requireSensible demands that the plugin succeeded, or ended with an error whose code
// says what kind of thing failed. It reports whether it succeeded.
func (s *siege) requireSensible(f *fault, end *ending) (succeeded bool) {
	s.t.Helper()
	failure, err := end.failure()
	switch {
	case err != nil:
		s.errorf("%v", err)
		return false
	case failure == nil:
		return true
	case !slices.Contains(s.codesFor(f.object), failure.Code):
		s.errorf("code %d for a failure of %q: %s", failure.Code, f.object, failure.Msg)
	}
	return false
}

// codesFor returns the codes that make sense when the kernel fails a call on object.
func (s *siege) codesFor(object string) []uint {
	switch {
	case strings.HasPrefix(object, s.runDir):
		return []uint{types.ErrTryAgainLater, types.ErrIOFailure}
	case object == netlinkObject:
		// Netlink is asked for weftd's device, too.
		return []uint{CodeWiring, types.ErrIOFailure, types.ErrTryAgainLater}
	case strings.HasPrefix(object, "/proc/sys/net/"):
		return []uint{CodeWiring}
	case strings.HasPrefix(object, "/proc/sys/kernel/"): // since when the machine is up
		return []uint{types.ErrIOFailure}
	case strings.HasPrefix(object, "net:"):
		// A thread that can't come back from the pod's namespace sees no guard.
		return []uint{CodeWiring, types.ErrIOFailure, types.ErrInvalidEnvironmentVariables, types.ErrInvalidNetNS, types.ErrTryAgainLater}
	case strings.HasPrefix(object, "/proc/"):
		return []uint{CodeWiring, types.ErrIOFailure, types.ErrInvalidEnvironmentVariables, types.ErrInvalidNetNS}
	default:
		return []uint{types.ErrIOFailure}
	}
}

// An ADD of which a system call fails succeeds wholly, or leaves nothing.
func TestAddFailingAtEverySyscall(t *testing.T) {
	failEverywhere(t, "ADD", func(*siege, *skel.CmdArgs) {}, func(s *siege, args *skel.CmdArgs, f *fault, end *ending) {
		if !s.requireSensible(f, end) {
			s.requireCalm()
			return
		}
		s.requireAttached(args, s.pod)
		result, err := types100.NewResult([]byte(end.stdout))
		if err != nil {
			s.errorf("result %q: %v", end.stdout, err)
			return
		}
		requireSameAddrs(s.t, s.pod.addrs(s.t, args.IfName), addrsOf(s.t, result))
		got, want := s.complete(args), s.whole
		if f.errno == unix.EROFS && strings.HasPrefix(f.object, "/proc/sys/net/") {
			// Settings that a pod can do without are given up where /proc is read-only.
			got, want = withoutSettings(got), withoutSettings(want)
		}
		if got != want {
			s.errorf("it succeeded, but (-undisturbed, +now):\n%s", cmp.Diff(want, got))
		}
	})
}

func withoutSettings(description string) string {
	lines := slices.DeleteFunc(strings.Split(description, "\n"), func(line string) bool { return strings.Contains(line, "/conf/") })
	return strings.Join(lines, "\n")
}

// A DEL of which a system call fails succeeds wholly, or can be repeated.
func TestDelFailingAtEverySyscall(t *testing.T) {
	prepare := func(s *siege, args *skel.CmdArgs) { s.mustAdd(args) }
	failEverywhere(t, "DEL", prepare, func(s *siege, _ *skel.CmdArgs, f *fault, end *ending) {
		if s.requireSensible(f, end) {
			s.requireCalm()
		}
	})
}

// The node's own namespace is refused, whichever system call fails.
func TestOwnNamespaceIsAlwaysRefused(t *testing.T) {
	s := newSiege(t)
	refusals := []uint{types.ErrInvalidEnvironmentVariables, types.ErrIOFailure}
	for which := range maxFailures {
		first, step := sample()
		for s.at = first; ; s.at += step {
			args := s.args("pod", s.Path())
			f := &fault{which: which, at: s.at}
			end := s.trace(t, "ADD", args, f.judge)
			s.struck = end.struck
			failure, err := end.failure()
			switch unheard := strings.HasPrefix(f.object, "pipe:"); {
			case unheard && end.status.ExitStatus() != 0:
			case err != nil || failure == nil:
				s.errorf("not refused, %v", err)
			case !slices.Contains(refusals, failure.Code):
				s.errorf("refused with code %d: %s", failure.Code, failure.Msg)
			}
			s.requireCalm()
			s.mustDel(args)
			if end.struck == "" {
				break
			}
		}
	}
}
