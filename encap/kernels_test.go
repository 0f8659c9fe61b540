package encap

import "testing"

func TestKernelsThatLoseRuns(t *testing.T) {
	virtio, card := []string{"virtio_net"}, []string{"ixgbe", "r8169"}
	for _, tc := range []struct {
		release string
		drivers []string
		want    string
	}{
		{"7.0.0", card, "Linux 7.0.0"},
		{"7.1.4-arch1-1", nil, "Linux 7.1.4-arch1-1"},
		{"7.1-rc3", nil, "Linux 7.1-rc3"},
		{"7.1.5", virtio, ""},
		{"7.10.1", virtio, ""},
		{"6.17.8-200.fc42.x86_64", append(card, virtio...), "Linux 6.17.8-200.fc42.x86_64 with virtio_net"},
		{"6.17.8", card, ""},
		{"6.18.1", virtio, ""},
		{"6.1.7", virtio, ""},
		{"none", virtio, ""},
	} {
		if got := losesRuns(tc.release, tc.drivers); got != tc.want {
			t.Errorf("%s with %v: %q, want %q", tc.release, tc.drivers, got, tc.want)
		}
	}
}
