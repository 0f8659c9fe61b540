package cniplugin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/testnet"
)

// killAtCall kills the plugin before its at-th system call does anything.
func killAtCall(at int) func(*call) verdict {
	return func(c *call) verdict { return verdict{kill: c.at == at} }
}

// killEverywhere kills command at its first system call, its second, and so on, until it
// is over before its turn: a Go program makes some calls more in one run than in
// another. Before each comes prepare, with the arguments of a fresh container, after each heal.
// Without testnet.Torture it is a sample of the calls.
func (s *siege) killEverywhere(command string, prepare, heal func(args *skel.CmdArgs)) {
	s.t.Helper()
	first, step := sample()
	for s.at = first; ; s.at += step {
		args := s.args(fmt.Sprintf("container-%d", s.at), s.pod.Path())
		s.struck = fmt.Sprintf("before system call %d", s.at)
		prepare(args)
		end := s.attack(command, args, killAtCall(s.at))
		if end == nil {
			s.mustDel(args)
			s.requireCalm()
			break
		}
		if !end.status.Signaled() {
			s.errorf("it was not killed, but ended with %#x", end.status)
		}
		heal(args)
		s.requireCalm()
	}
	s.t.Logf("%s was killed at %d of its %d system calls, from number %d in steps of %d", command, s.hits, s.at-1, first, step)
	if s.at < 100 {
		s.t.Error("that is too few to be all")
	}
}

// sample returns the first system call to strike, and how many further the next one is.
// Which calls are struck differs from run to run, so that in the end it is all of them.
func sample() (first, step int) {
	step = testnet.Sampled(25, 1)
	return 1 + rand.IntN(step), step
}

func nothing(*skel.CmdArgs) {}

// The next ADD or DEL repairs what a killed ADD left.
func TestAddKilledAtEverySyscall(t *testing.T) {
	// Each call has its turn in both, so that each is followed by ADD and by DEL.
	for odd, name := range []string{"ADD after even calls, DEL after odd ones", "ADD after odd calls, DEL after even ones"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSiege(t)
			s.killEverywhere("ADD", nothing, func(args *skel.CmdArgs) {
				if s.hits%2 == odd {
					s.addAgain(args)
				}
				s.mustDel(args)
			})
		})
	}
}

// addAgain repeats an ADD that was killed.
func (s *siege) addAgain(args *skel.CmdArgs) {
	s.t.Helper()
	// An ADD that was killed after its last step looks like one that succeeded.
	if err := s.call(s.plugin.Add, args); err != nil && codeOfError(err) != CodeAttached {
		s.errorf("ADD again: %v", err)
		return
	}
	s.requireAttached(args, s.pod)
}

// The next DEL finishes what a killed one began, and no address that is in use is freed.
func TestDelKilledAtEverySyscall(t *testing.T) {
	t.Run("DEL again", func(t *testing.T) {
		t.Parallel()
		s := newSiege(t)
		s.killEverywhere("DEL", s.mustAdd, s.mustDel)
	})
	t.Run("ADD of another pod meanwhile", func(t *testing.T) {
		t.Parallel()
		s := newSiege(t)
		pod := newNamespace(t)
		s.killEverywhere("DEL", s.mustAdd, func(args *skel.CmdArgs) {
			held := s.pod.addrs(t, "eth0")
			leased := len(s.leases()) > 1
			other := s.args("other-than-"+args.ContainerID, pod.Path())
			// The only address but the neighbour's is the one that the killed DEL is to free.
			switch err := s.call(s.plugin.Add, other); {
			case leased && codeOfError(err) == types.ErrTryAgainLater:
			case err != nil || leased:
				s.errorf("the old pod has a lease: %t; ADD of another pod: %v", leased, err)
			default:
				s.requireAttached(other, pod)
				if !noEth0(t, s.pod) {
					s.errorf("its address was given to another pod while its interface is there, with %v", held)
				}
			}
			s.mustDel(other)
			s.mustDel(args)
			if !noEth0(t, pod) {
				s.errorf("the other pod still has an interface")
			}
		})
	})
}

// codeOfError returns the CNI code of what one of the plugin's functions returned, 0 if
// it has none.
func codeOfError(err error) uint {
	if cniErr, ok := errors.AsType[*types.Error](err); ok {
		return cniErr.Code
	}
	return 0
}
