package load

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

func TestSizesFillBatchesAndAreWhatTheySay(t *testing.T) {
	for name, sizes := range map[string]Sizes{"small": Small, "imix": IMIX} {
		if batchSize%len(sizes) != 0 {
			t.Errorf("%s: %d sizes don't divide a batch of %d", name, len(sizes), batchSize)
		}
	}
	counts := map[int]int{}
	for _, size := range IMIX {
		counts[size]++
	}
	if counts[64] != 7 || counts[576] != 4 || counts[1400] != 1 || len(counts) != 3 {
		t.Errorf("IMIX is %v", counts)
	}
	if mean := IMIX.Mean(); mean != (7*64.+4*576+1400)/12 {
		t.Errorf("mean %v", mean)
	}
}

// freePort returns a free UDP port.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// startSink returns a function that stops the sink and says what it counted.
func startSink(t *testing.T, port uint16) func() Count {
	t.Helper()
	var stop atomic.Bool
	ready, done := make(chan struct{}), make(chan Count, 1)
	go func() {
		arrived, err := Sink(port, &stop, func() { close(ready) })
		if err != nil {
			t.Error(err)
		}
		done <- arrived
	}()
	<-ready
	return func() Count {
		stop.Store(true)
		return <-done
	}
}

func TestASinkCountsWhatASourceSends(t *testing.T) {
	addr := freePort(t)
	stop := startSink(t, addr.Port())
	sent, err := Source(addr, IMIX, 5000, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	arrived := stop()
	if arrived.Packets != sent.Packets || sent.Packets < 500 || sent.Packets > 1000 {
		t.Errorf("%d packets sent, %d arrived; 5000 a second were asked for in a fifth of a second", sent.Packets, arrived.Packets)
	}
	if arrived.Took <= 0 || arrived.Took > sent.Took+drained {
		t.Errorf("sent in %v, arrived in %v", sent.Took, arrived.Took)
	}
}

func TestASourceWithoutRateIsFasterThanOneWith(t *testing.T) {
	addr := freePort(t)
	stop := startSink(t, addr.Port())
	sent, err := Source(addr, Small, 0, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if arrived := stop(); arrived.Packets == 0 || sent.Rate() < 5000 {
		t.Errorf("%d packets sent, %d arrived", sent.Packets, arrived.Packets)
	}
}

func TestSourceReportsClosedPort(t *testing.T) {
	if _, err := Source(freePort(t), Small, 1000, 100*time.Millisecond); err == nil {
		t.Error("no error")
	}
}

func TestRatesOfNothing(t *testing.T) {
	if rate := (Count{Packets: 1}).Rate(); rate != 0 {
		t.Errorf("one packet has the rate %v", rate)
	}
	if rate := (Count{Packets: 500, Took: 2 * time.Second}).Rate(); rate != 250 {
		t.Errorf("rate %v", rate)
	}
}
