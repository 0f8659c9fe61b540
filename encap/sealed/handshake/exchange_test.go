package handshake

import (
	"bytes"
	"testing"

	"weft/encap/sealed"
)

// FuzzHello holds readHello to its word: what it accepts is what bytes would write.
func FuzzHello(f *testing.F) {
	f.Add(hello{1, 7}.bytes())
	f.Add(hello{sealed.MaxLanes, sealed.MaxSession}.bytes())
	f.Add([]byte{helloVersion})
	f.Add([]byte{helloVersion + 1, 1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		if h.lanes < 1 || h.lanes > sealed.MaxLanes || h.session > sealed.MaxSession || !bytes.Equal(h.bytes(), b[:helloLen]) {
			t.Errorf("%x is read as %+v", b, h)
		}
	})
}
