package handshake

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"weft/peer"
)

// An inquiry is a question to a peer, and its answer, of which this package knows no more than the
// lengths. Both go as datagrams of QUIC (RFC 9221): a kind, a number that the answer repeats, and
// the content. A peer of a version without inquiries ignores them.
const (
	askInquiry    = 3
	sayInquiry    = 4
	inquiryHeader = 1 + 4

	// MaxQuestion and MaxAnswer bound the contents, in bytes. Any path that carries a handshake
	// carries them.
	MaxQuestion = 64
	MaxAnswer   = 1000

	// An inquiry is sent again after inquiryWait, since datagrams may be lost.
	inquiryTries = 5
	inquiryWait  = time.Second

	// mostInquiries is how many of this node may be open.
	mostInquiries = 64

	// To answer may be expensive. All peers together get one answer at a time, and so many a second; one
	// peer gets so many of these, which leaves half of them to the others however often it asks.
	answersPerSecond     = 1
	answersBurst         = 20
	peerAnswersPerSecond = answersPerSecond / 2.
	peerAnswersBurst     = answersBurst / 2
)

// inquiries are those of this node that wait for an answer.
type inquiries struct {
	mu   sync.Mutex // guards what follows
	last uint32
	open map[uint32]inquiry
}

type inquiry struct {
	conn   *quic.Conn
	answer chan []byte
}

func (i *inquiries) begin(conn *quic.Conn) (uint32, <-chan []byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.open) >= mostInquiries {
		return 0, nil, errors.New("too many inquiries are open; try again")
	}
	if i.open == nil {
		i.open = map[uint32]inquiry{}
	}
	i.last++
	answer := make(chan []byte, 1)
	i.open[i.last] = inquiry{conn, answer}
	return i.last, answer, nil
}

func (i *inquiries) end(number uint32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.open, number)
}

// take hands on an answer that came by a connection, unless nothing waits for it.
func (i *inquiries) take(conn *quic.Conn, number uint32, answer []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if open, ok := i.open[number]; ok && open.conn == conn {
		select {
		case open.answer <- answer:
		default: // it came twice
		}
	}
}

// Inquire asks the named peer, and returns its answer. It agrees on keys where there is no connection.
func (m *Manager) Inquire(ctx context.Context, name string, question []byte) ([]byte, error) {
	if len(question) > MaxQuestion {
		return nil, fmt.Errorf("a question of %d bytes is too long", len(question))
	}
	conn, err := m.awaitConnection(ctx, name)
	if err != nil {
		return nil, err
	}
	number, answer, err := m.inquiries.begin(conn)
	if err != nil {
		return nil, err
	}
	defer m.inquiries.end(number)
	message := append(binary.BigEndian.AppendUint32([]byte{askInquiry}, number), question...)
	for range inquiryTries {
		if err := conn.SendDatagram(message); err != nil {
			return nil, fmt.Errorf("send an inquiry to %s: %w", name, err)
		}
		select {
		case a := <-answer:
			return a, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the answer of %s: %w", name, ctx.Err())
		case <-conn.Context().Done():
			return nil, fmt.Errorf("the connection to %s ended before its answer; try again", name)
		case <-time.After(inquiryWait):
		}
	}
	return nil, fmt.Errorf("%s gives no answer; it may be busy, or run a weft that knows no inquiries", name)
}

// awaitConnection returns the connection to the named peer. If there is none, it dials.
func (m *Manager) awaitConnection(ctx context.Context, name string) (*quic.Conn, error) {
	for {
		m.mu.Lock()
		changed := m.changed
		l := m.linkOf(name)
		if l == nil {
			m.mu.Unlock()
			return nil, fmt.Errorf("%s is not in the list of nodes", name)
		}
		conn, why, down := l.conn, l.lastErr, l.unreachable
		if conn == nil && !down {
			m.dialSoon(l)
		}
		m.mu.Unlock()
		switch {
		case conn != nil:
			return conn, nil
		case down:
			return nil, fmt.Errorf("%s is unreachable: %w", name, cmp.Or(why, errors.New("it does not answer")))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no connection to %s: %w", name, ctx.Err())
		}
	}
}

// linkOf returns the link to the named peer, or nil. The manager's lock is held.
func (m *Manager) linkOf(name string) *link {
	for _, l := range m.links {
		if l.node.Name == name {
			return l
		}
	}
	return nil
}

// answerInquiry answers a peer's inquiry, unless another one is being answered: then the peer asks
// again.
func (m *Manager) answerInquiry(l *link, conn *quic.Conn, message []byte) {
	if m.Answer == nil || !m.inquired.TryLock() {
		return
	}
	if !m.mayAnswer(l, time.Now()) {
		m.inquired.Unlock()
		return
	}
	go func() {
		defer m.inquired.Unlock()
		answer := m.Answer(m.nodeOf(l), message[inquiryHeader:])
		if len(answer) == 0 || len(answer) > MaxAnswer {
			return
		}
		reply := append([]byte{sayInquiry}, message[1:inquiryHeader]...)
		_ = conn.SendDatagram(append(reply, answer...)) // the peer asks again if it gets lost
	}()
}

// mayAnswer says whether the peer's turn for an answer has come.
func (m *Manager) mayAnswer(l *link, now time.Time) bool {
	return l.answers.AllowN(now, 1) && m.answers.AllowN(now, 1)
}

// nodeOf is the peer as the newest list of nodes has it.
func (m *Manager) nodeOf(l *link) *peer.Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return l.node
}
