package sealed

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
)

// A session's number is a slot of the table, and above it random bits that differ each
// time that the slot is used: what is still under way for an old session meets no new one.
const (
	slotBits       = 16
	slotsPerChunk  = 256
	chunks         = 1 << slotBits / slotsPerChunk
	generationBits = 32 - laneBits - slotBits
)

// sessions finds the epoch that a datagram names. Lanes read it without a lock.
type sessions struct {
	chunks [chunks]atomic.Pointer[[slotsPerChunk]atomic.Pointer[Epoch]]

	mu   sync.Mutex // guards what follows, and is held while chunks are changed
	free []uint16   // slots that were used before
	used int        // slots that have ever been used
}

// find returns the epoch of an index, or nil.
func (s *sessions) find(index uint32) *Epoch {
	slot := index >> laneBits % (1 << slotBits)
	chunk := s.chunks[slot/slotsPerChunk].Load()
	if chunk == nil {
		return nil
	}
	e := chunk[slot%slotsPerChunk].Load()
	if e == nil || e.local != index&^(maxLanes-1) {
		return nil
	}
	return e
}

// add gives the epoch a number.
func (s *sessions) add(e *Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var slot uint32
	switch {
	case len(s.free) > 0 && (len(s.free) > 1<<10 || s.used == 1<<slotBits):
		slot = uint32(s.free[0]) // the one that has rested longest
		s.free = s.free[1:]
	case s.used < 1<<slotBits:
		slot = uint32(s.used)
		s.used++
	default:
		return errors.New("there are too many sessions")
	}
	generation := rand.Uint32N(1 << generationBits)
	e.local = (generation<<slotBits | slot) << laneBits
	s.chunk(int(slot))[slot%slotsPerChunk].Store(e)
	return nil
}

// restore has imported epochs found by the numbers that they have. After an error, none is.
func (s *sessions) restore(all []imported) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := make(map[uint16]bool, len(all))
	for _, i := range all {
		slot := uint16(i.local >> laneBits)
		for ; s.used <= int(slot); s.used++ {
			s.free = append(s.free, uint16(s.used))
		}
		if taken[slot] || s.chunk(int(slot))[slot%slotsPerChunk].Load() != nil {
			return errors.New("two sessions have one number")
		}
		taken[slot] = true
	}
	for _, i := range all {
		slot := uint16(i.local >> laneBits)
		s.chunk(int(slot))[slot%slotsPerChunk].Store(i.Epoch)
	}
	s.free = slices.DeleteFunc(s.free, func(slot uint16) bool { return taken[slot] })
	return nil
}

// chunk returns the part of the table that a slot is in. s.mu is held.
func (s *sessions) chunk(slot int) *[slotsPerChunk]atomic.Pointer[Epoch] {
	chunk := s.chunks[slot/slotsPerChunk].Load()
	if chunk == nil {
		chunk = new([slotsPerChunk]atomic.Pointer[Epoch])
		s.chunks[slot/slotsPerChunk].Store(chunk)
	}
	return chunk
}

// remove forgets the epoch.
func (s *sessions) remove(e *Epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := e.local >> laneBits % (1 << slotBits)
	s.chunks[slot/slotsPerChunk].Load()[slot%slotsPerChunk].Store(nil)
	s.free = append(s.free, uint16(slot))
}

// peers returns those whose epochs there are.
func (s *sessions) peers() map[*Peer]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[*Peer]struct{})
	for slot := range s.used {
		if e := s.chunks[slot/slotsPerChunk].Load()[slot%slotsPerChunk].Load(); e != nil {
			all[e.peer] = struct{}{}
		}
	}
	return all
}
