package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"weft/encap"
	"weft/internal/config"
)

// checkRuns looks whether datagrams that are sent as one message (UDP GSO) arrive at this host
// itself. Whether a card loses them shows only at a peer: weftd compares, and warns
// (udp_gso_lost).
func checkRuns(_ context.Context, h *host) []Finding {
	if h.Config.UDP.GSO == config.GSOOff {
		return skipped("udp.gso is off")
	}
	if kernel := encap.LossyKernel(); kernel != "" && h.Config.UDP.GSO == config.GSOAuto {
		return warn(kernel+" loses datagrams that are sent in one message (UDP GSO), so weftd sends each one alone", "use another kernel, or write udp.gso: on if yours is repaired")
	}
	if h.report != nil {
		for _, w := range h.report.Warnings {
			if w.Code == "udp_gso" {
				return of(Warning, w.Text)
			}
		}
	}
	addr, err := h.underlay()
	if err != nil {
		return skipped("the uplink is not known: %v", err)
	}
	sent, arrived, err := sendRun(addr)
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return skipped("no interface has the address %s, so no run can be sent to it", addr)
	case errors.Is(err, errBlocked):
		return skipped("not even a single datagram to this host's own address %s arrives", addr)
	case err != nil:
		return warn("the kernel refuses several datagrams in one message (UDP GSO): "+err.Error(), "ethtool -k DEVICE shows whether tx-udp-segmentation or tx-checksumming is off; weftd sends each one alone")
	case arrived < sent:
		return fail(fmt.Sprintf("the kernel loses or damages datagrams that are sent in one message (UDP GSO): of %d to this host's own address %s, %d arrived", sent, addr, arrived), "write udp.gso: off, or use another kernel")
	}
	return ok("the kernel cuts runs of datagrams correctly (UDP GSO)")
}

// errBlocked says that single datagrams don't arrive either.
var errBlocked = errors.New("single datagrams don't arrive")

// sendRun sends a run to an address of this host, and counts what arrives unchanged.
func sendRun(addr netip.Addr) (sent, arrived int, err error) {
	const size, full, rest = 1200, 20, 100
	to, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return 0, 0, err
	}
	defer to.Close()
	from, err := net.DialUDP("udp", nil, to.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return 0, 0, err
	}
	defer from.Close()
	if err := sendOne(from, to); err != nil {
		return 0, 0, err
	}
	raw, err := from.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }); err != nil || failed != nil {
		return 0, 0, errors.Join(err, failed)
	}
	var run []byte
	expected := map[byte][]byte{}
	for i := range byte(full + 1) {
		datagram := bytes.Repeat([]byte{i}, size)
		if i == full {
			datagram = datagram[:rest]
		}
		expected[i] = datagram
		run = append(run, datagram...)
	}
	if _, err := from.Write(run); err != nil {
		return 0, 0, err
	}
	if err := to.SetReadDeadline(time.Now().Add(arrival)); err != nil {
		return 0, 0, err
	}
	sent = len(expected)
	self := from.LocalAddr().(*net.UDPAddr).AddrPort()
	for buf := make([]byte, len(run)); len(expected) > 0; {
		n, source, err := to.ReadFromUDPAddrPort(buf)
		if err != nil {
			return sent, arrived, nil // the deadline: the rest is lost
		}
		if source.Port() == self.Port() && n > 0 && bytes.Equal(buf[:n], expected[buf[0]]) {
			delete(expected, buf[0])
			arrived++
		}
	}
	return sent, arrived, nil
}

// arrival is how long datagrams to this host itself may take.
const arrival = 2 * time.Second

// sendOne sends a single datagram, and returns errBlocked if it doesn't arrive.
func sendOne(from, to *net.UDPConn) error {
	if _, err := from.Write([]byte("weft doctor")); err != nil {
		return err
	}
	if err := to.SetReadDeadline(time.Now().Add(arrival)); err != nil {
		return err
	}
	if _, err := to.Read(make([]byte, 64)); err != nil {
		return errBlocked
	}
	return nil
}
