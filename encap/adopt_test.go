package encap_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/encap"
)

// copies returns descriptors as another process would get them.
func copies(t *testing.T, conns []*encap.Conn) (receiving, sending []*os.File) {
	t.Helper()
	dup := func(f *os.File) *os.File {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "copy")
	}
	for _, c := range conns {
		r, s := c.Files()
		receiving, sending = append(receiving, dup(r)), append(sending, dup(s))
	}
	return receiving, sending
}

// What arrives between two processes is for the second one, each datagram in its lane, and what that
// one sends comes from the same ports.
func TestAdoptedSocketsGoOn(t *testing.T) {
	overEachFamily(t, func(t *testing.T, bind, dial string) {
		free := func() string { return fmt.Sprint(bind, ":", listen(t, bind+":0", 1)[0].LocalAddr().Port()+1) }
		senders, before := listen(t, free(), 4), listen(t, free(), 4)
		receiving, sending := copies(t, before)
		for _, from := range senders {
			from.WriteBatch(batch(peerAt(before[0], dial), []byte("meanwhile")))
		}
		at := netip.AddrPortFrom(netip.MustParseAddr(strings.Trim(bind, "[]")), before[0].LocalAddr().Port())
		after, err := encap.Prepare(len(receiving)).Adopt(at, receiving, sending, encap.Options{GRO: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range before {
			if got := after[i].SourcePort(); got != c.SourcePort() {
				t.Errorf("lane %d sends from port %d, and before from %d", i, got, c.SourcePort())
			}
			c.Close()
		}
		for i, from := range senders {
			text := fmt.Sprintf("to lane %d", i)
			from.WriteBatch(batch(peerAt(after[0], dial), []byte(text)))
			if got, _ := receive(t, after[i], 2); !slices.Equal(got, []string{"meanwhile", text}) {
				t.Errorf("lane %d receives %q", i, got)
			}
			after[i].WriteBatch(batch(peerAt(from, dial), []byte("back")))
			if got, _ := receive(t, senders[i], 1); !slices.Equal(got, []string{"back"}) {
				t.Errorf("lane %d sends %q", i, got)
			}
		}
		for _, c := range after {
			c.Close()
		}
	})
}

func TestForeignSocketsAreNotAdopted(t *testing.T) {
	conns := listen(t, "127.0.0.1:0", 1)
	at := conns[0].LocalAddr()
	receiving, sending := copies(t, conns)
	if _, err := encap.Prepare(1).Adopt(netip.AddrPortFrom(at.Addr(), at.Port()+1), receiving, sending, encap.Options{}); err == nil || !strings.Contains(err.Error(), "the socket is bound to") {
		t.Errorf("another address: %v", err)
	}
	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_, sending = copies(t, conns)
	if _, err := encap.Prepare(1).Adopt(at, []*os.File{pipe}, sending, encap.Options{}); err == nil {
		t.Error("a pipe is adopted")
	}
}
