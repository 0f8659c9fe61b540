package sealed

// wordBits is the size of a word, and windowWords that of a window: as RFC 6479 has it, one
// word more than are guaranteed, since the newest word is not yet full.
const (
	wordBits    = 64
	windowWords = Window/wordBits + 1
)

// Window is how far behind the newest datagram of its lane one may arrive, in
// datagrams: some milliseconds of 10 Gb/s.
const Window = 8192

// window remembers which counters have been seen, of the newest Window at least.
type window struct {
	next uint64 // one more than the largest counter that was seen
	seen [windowWords]uint64
}

// fresh reports whether counter is new. A counter too old for the window is not.
func (w *window) fresh(counter uint64) bool {
	if counter >= w.next {
		return counter < counterLimit
	}
	return w.next-counter <= Window && w.seen[counter/wordBits%windowWords]&(1<<(counter%wordBits)) == 0
}

// mark makes counter, which is fresh, one that was seen. Only what is authentic may move
// the window.
func (w *window) mark(counter uint64) {
	if counter >= w.next {
		// The words between the one that holds the newest and counter's are new.
		from, to := (w.next+wordBits-1)/wordBits, counter/wordBits
		if to >= from+windowWords {
			from = to - windowWords + 1
		}
		for i := from; i <= to; i++ {
			w.seen[i%windowWords] = 0
		}
		w.next = counter + 1
	}
	w.seen[counter/wordBits%windowWords] |= 1 << (counter % wordBits)
}
