package encap

import (
	"net"

	"golang.org/x/net/ipv4"
)

// writer is the sending half of a Conn: sendmmsg(2) by golang.org/x/net, whose
// messages and addresses are laid out once and filled anew for each batch. It
// serves IPv6 sockets too: the two packages of x/net differ in socket options,
// not in how they send.
type writer struct {
	conn     *ipv4.PacketConn
	messages []ipv4.Message
	addrs    []net.UDPAddr
}

func (w *writer) init(conn *ipv4.PacketConn) {
	w.conn = conn
	w.messages = make([]ipv4.Message, batchSize)
	w.addrs = make([]net.UDPAddr, batchSize)
	for i := range w.messages {
		w.addrs[i].IP = make(net.IP, net.IPv6len)
		w.messages[i].Addr = &w.addrs[i]
		w.messages[i].Buffers = make([][]byte, 1)
	}
}

func (w *writer) write(datagrams []Datagram) (int, error) {
	sent := 0
	for sent < len(datagrams) {
		batch := datagrams[sent:min(sent+batchSize, len(datagrams))]
		for i := range batch {
			w.messages[i].Buffers[0] = batch[i].Payload
			ip := batch[i].To.Endpoint.Addr().As16() // x/net sends to an IPv4-mapped one by IPv4
			copy(w.addrs[i].IP, ip[:])
			w.addrs[i].Port = int(batch[i].To.Endpoint.Port())
		}
		n, err := w.conn.WriteBatch(w.messages[:len(batch)], 0)
		// sendmmsg(2) tells an error only of the first datagram; of a later one it
		// returns how many went before, and the next call tells why.
		sent += max(n, 0)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}
