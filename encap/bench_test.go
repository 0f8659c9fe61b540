package encap_test

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"

	"weft/encap"
	"weft/peer"
)

// The two benchmarks send and receive the same 32 datagrams of 1,400 bytes a turn, here
// by golang.org/x/net as most Go programs would. They say why weft has calls of its own.

func BenchmarkBatchByXNet(b *testing.B) {
	open := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		return c
	}
	to := open()
	sender, receiver := ipv4.NewPacketConn(open()), ipv4.NewPacketConn(to)
	out, in := make([]ipv4.Message, 32), make([]ipv4.Message, 32)
	for i := range out {
		out[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 22), make([]byte, 1378)}, Addr: to.LocalAddr()}
		in[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 65535)}}
	}
	b.ReportAllocs()
	for b.Loop() {
		for sent := 0; sent < len(out); {
			n, err := sender.WriteBatch(out[sent:], 0)
			if err != nil {
				b.Fatal(err)
			}
			sent += n
		}
		for received := 0; received < len(out); {
			n, err := receiver.ReadBatch(in, 0)
			if err != nil {
				b.Fatal(err)
			}
			received += n
		}
	}
}

func BenchmarkBatchByConn(b *testing.B) {
	from, to := listen(b, "127.0.0.1:0", 1)[0], listen(b, "127.0.0.1:0", 1)[0]
	peer := &peer.Peer{Endpoint: netip.MustParseAddrPort(to.LocalAddr().String())}
	payload, batch := make([]byte, 1400), new(encap.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		for range 32 {
			batch.Add(peer, 0, payload[:22], payload[22:], 1378)
		}
		if sent := from.WriteBatch(batch); sent.Refused > 0 {
			b.Fatal(sent.Err)
		}
		for received := 0; received < 32; {
			r, err := to.ReadBatch()
			if err != nil {
				b.Fatal(err)
			}
			received += len(r)
		}
	}
}
