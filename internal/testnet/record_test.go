package testnet

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sayTo sends datagrams to 10.9.0.2, where no socket listens.
func sayTo(t *testing.T, from *Namespace, datagrams int, text string) {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp", "10.9.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range datagrams {
		_, _ = conn.Write([]byte(text)) // refused, from the second on
	}
}

// heard counts the datagrams with text. The frames by which a host refuses them end
// with it too.
func heard(frames [][]byte, text string) (n int) {
	for _, frame := range frames {
		if bytes.HasSuffix(frame, []byte(text)) && frame[14+9] == unix.IPPROTO_UDP {
			n++
		}
	}
	return n
}

func TestRecordingHoldsBothDirections(t *testing.T) {
	a, b := connectPair(t, newTestNet(t), Wire{})
	sayTo(t, a, 1, "hello earlier")
	for _, at := range []*Namespace{a, b} {
		frames, err := at.Record("eth0", func() error {
			sayTo(t, a, 1, "hello meanwhile")
			return nil
		})
		if err != nil || heard(frames, "hello meanwhile") != 1 || heard(frames, "hello earlier") != 0 {
			t.Errorf("in %s: %q, %v", at.Name(), frames, err)
		}
	}
}

func TestRecordingThatLacksFramesIsAnError(t *testing.T) {
	a, _ := connectPair(t, newTestNet(t), Wire{})
	_, err := a.Record("eth0", func() error {
		const size = 1400
		sayTo(t, a, 2*recordBuffer/size+1, strings.Repeat("x", size)) // the kernel doubles the buffer (socket(7))
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "left out") {
		t.Errorf("got %v", err)
	}
}

func TestFailedRecordingGivesTheReason(t *testing.T) {
	ns := addNamespace(t, newTestNet(t), "a")
	failed := errors.New("connection refused")
	if _, err := ns.Record("lo", func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if _, err := ns.Record("eth0", func() error { return nil }); err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("of a link that is not there: %v", err)
	}
}
