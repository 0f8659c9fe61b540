// Package handover passes the data path from one weftd to the next: the descriptors of TUN queues
// and sockets, in which packets wait meanwhile, and the keys in sealed memory. There are two ways:
// from a weftd that runs (Ask and Listen), and through systemd's file descriptor store (Store and
// Inherited).
//
// A state that is handed over belongs to the process that removes its ticket, a file in the run
// directory. The kernel lets one process remove it. So of two processes that both have the keys one
// uses them, wherever the other stops or dies, and keys without a ticket are never used again.
package handover

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"weft/daemon/engine"
	"weft/encap/sealed"
	"weft/router"
)

// version is that of what is handed over. Another one can't be taken.
const version = 1

// Spec is what both processes must agree on, or the next one starts as if nothing were handed over.
type Spec struct {
	Encapsulation string         `json:"encapsulation"`
	Keys          int            `json:"keys"` // version of their layout
	TUN           string         `json:"tun"`
	Driver        string         `json:"driver"`
	Lanes         int            `json:"lanes"`
	Listen        netip.AddrPort `json:"listen"`
	Mark          uint32         `json:"mark"` // of datagrams
}

// State is a data path that stands still. All but the keys and the descriptors passes as JSON.
type State struct {
	Spec  Spec          `json:"spec"`
	Since time.Duration `json:"since"` // when the lanes stopped, by Now
	Roams []engine.Roam `json:"roams"` // peers that are not where the list has them

	// Narrow is the MTU in bytes of paths that carry less than pods send, by the peers' names.
	Narrow map[string]int `json:"narrow"`
	MTU    int            `json:"mtu"` // of the device, in bytes; 0 if it is not known yet

	RunsLost map[string]bool `json:"runsLost,omitempty"` // peers, by name, to which runs of datagrams get lost
	Counters Counters        `json:"counters"`

	Keys []byte `json:"-"` // as sealed.Peers.Export returns them; empty without encryption

	// Of each lane.
	Queues, Receiving, Sending []*os.File `json:"-"`
}

// Counters are what a data path has counted. They go on in the next process, so that what is lost
// shortly before a hand-over shows. A weftd of an earlier version hands none over.
type Counters struct {
	Lanes  []LaneCounters `json:"lanes,omitempty"`
	Waited sealed.Waited  `json:"waited"`

	// Logged are the drops that the log has: by what drops, and reason.
	Logged map[string]map[string]uint64 `json:"logged,omitempty"`
}

// LaneCounters are one lane's.
type LaneCounters struct {
	Outbound router.Traffic    `json:"outbound"`
	Inbound  router.Traffic    `json:"inbound"`
	Drops    map[string]uint64 `json:"drops,omitempty"` // by name: numbers differ between versions
	Joined   uint64            `json:"joined"`          // datagrams, by GRO
}

// Now is the time by the clock that all processes of a machine share, and which is never set
// (clock_gettime(2), CLOCK_MONOTONIC).
func Now() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // only for a clock that does not exist
	}
	return time.Duration(now.Nano())
}

// Wipe overwrites the keys.
func (s *State) Wipe() { clear(s.Keys) }

// Close closes the descriptors, and wipes the keys.
func (s *State) Close() {
	s.Wipe()
	closeAll(s.files())
}

// files are all descriptors in the order of names.
func (s *State) files() (all []*os.File) {
	all = append(all, s.Queues...)
	all = append(all, s.Receiving...)
	return append(all, s.Sending...)
}

// Offer is what was handed over, before it is claimed.
type Offer struct {
	runDir string
	memory *os.File   // the keys, and what belongs to the descriptors
	files  []*os.File // in the order of State.files
	detach func()     // withdraws what the offerer still has; may be nil
}

// Claim makes the offer the caller's, if it is as want says. After an error, the process that made
// the offer may go on with it. Either way, the offer is used up.
func (o *Offer) Claim(want Spec) (*State, error) {
	defer o.memory.Close()
	s, ticket, err := read(o.memory)
	if err == nil {
		err = s.check(want, len(o.files))
	}
	if o.detach != nil {
		o.detach()
	}
	if err == nil {
		step("checked")
		err = claim(o.runDir, ticket)
	}
	if err != nil {
		closeAll(o.files)
		if s != nil {
			s.Wipe()
		}
		return nil, err
	}
	step("claimed")
	lanes := s.Spec.Lanes
	s.Queues, s.Receiving, s.Sending = o.files[:lanes], o.files[lanes:2*lanes], o.files[2*lanes:]
	return s, nil
}

// Close gives up what was offered.
func (o *Offer) Close() {
	closeAll(append(o.files, o.memory))
	if o.detach != nil {
		o.detach()
	}
}

func (s *State) check(want Spec, files int) error {
	if err := s.Spec.differs(want); err != nil {
		return err
	}
	if files != 3*want.Lanes {
		return fmt.Errorf("%d descriptors were handed over for %d lanes, and not 3 for each", files, want.Lanes)
	}
	return nil
}

// differs returns what s has otherwise than want, or nil.
func (s Spec) differs(want Spec) error {
	var errs []error
	compare := func(what string, has, wants any) {
		if has != wants {
			errs = append(errs, fmt.Errorf("%s is %v there and %v here", what, has, wants))
		}
	}
	compare("encapsulation", s.Encapsulation, want.Encapsulation)
	compare("the keys' layout", s.Keys, want.Keys)
	compare("tun.name", s.TUN, want.TUN)
	compare("tun.driver", s.Driver, want.Driver)
	compare("tun.lanes", s.Lanes, want.Lanes)
	compare("listen", s.Listen, want.Listen)
	compare("the mark of datagrams", s.Mark, want.Mark)
	return errors.Join(errs...)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // nothing is written to it
		}
	}
}

// step is called between steps. Tests kill the process there.
var step = func(string) {}
