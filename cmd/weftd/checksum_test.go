package main_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
	"weft/packet/packettest"
)

// sendRaw sends packets as they are, but for IPv4's own checksum (raw(7), ipv6(7)).
func sendRaw(t *testing.T, from *testnet.Namespace, to netip.Addr, packets ...[]byte) {
	t.Helper()
	family, name := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16()})
	if to.Is4() {
		family, name = unix.AF_INET, &unix.SockaddrInet4{Addr: to.As4()}
	}
	err := from.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, b := range packets {
			if err := unix.Sendto(fd, b, 0, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPodsWrongChecksumArrivesWrong(t *testing.T) {
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2})
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			from, to := addrOf(t, pod1, v6), addrOf(t, pod2, v6)
			var socket *net.UDPConn
			err := pod2.Do(func() (err error) {
				socket, err = net.ListenUDP("udp", &net.UDPAddr{IP: to.AsSlice(), Port: 5000})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			good, wrong := packettest.UDP(from, to, 100), packettest.UDP(from, to, 101)
			wrong[len(wrong)-1] ^= 1
			sendRaw(t, pod1.Namespace, to, good, wrong, wrong, good)

			buf := make([]byte, 2000)
			_ = socket.SetReadDeadline(time.Now().Add(testnet.WaitLimit))
			for range 2 {
				if n, err := socket.Read(buf); err != nil || !bytes.Equal(buf[:n], good[len(good)-100:]) {
					t.Errorf("the pod reads %x, %v", buf[:n], err)
				}
			}
			counter := map[bool]string{false: "Udp.InCsumErrors", true: "Udp6InCsumErrors"}[v6]
			if got := snmp(t, pod2.Namespace)[counter]; got != "2" {
				t.Errorf("the pod's kernel counts %s checksum errors of two (%s)", got, counter)
			}
		})
	}
}
