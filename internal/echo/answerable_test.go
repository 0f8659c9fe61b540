package echo

import (
	"net/netip"
	"testing"
)

func TestWhatIsAnswered(t *testing.T) {
	const port = 9340
	for _, test := range []struct {
		name string
		n    int
		from string
		want bool
	}{
		{"an asker", MinDatagram, "10.244.1.2:40000", true},
		{"too short for the answer", MinDatagram - 1, "10.244.1.2:40000", false},
		{"another server's answer", 100, "10.244.2.1:9340", false},
	} {
		if got := answerable(test.n, netip.MustParseAddrPort(test.from), port); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
