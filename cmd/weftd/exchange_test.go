package main_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft/internal/testnet"
)

// exchange is an established TCP connection on which one pod asks and another
// answers, every few milliseconds, until it is stopped.
type exchange struct {
	conn    net.Conn
	stopped chan struct{}
	ended   chan struct{}

	mu      sync.Mutex
	answers []time.Time // when each came
	err     error
}

const (
	exchangePort  = "7001"
	exchangePause = 5 * time.Millisecond
)

func startExchange(t *testing.T, from, to *testnet.Namespace, addr netip.Addr) *exchange {
	t.Helper()
	listener, err := to.Listen(t.Context(), "tcp", net.JoinHostPort(addr.String(), exchangePort))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer listener.Close()
		if conn, err := listener.Accept(); err == nil {
			defer conn.Close()
			_, _ = io.Copy(conn, conn) // the asking side notices what goes wrong
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), testnet.WaitLimit)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", net.JoinHostPort(addr.String(), exchangePort))
	if err != nil {
		listener.Close()
		t.Fatal(err)
	}
	e := &exchange{conn: conn, stopped: make(chan struct{}), ended: make(chan struct{})}
	go e.ask()
	t.Cleanup(func() {
		listener.Close()
		conn.Close()
		<-e.ended
	})
	return e
}

func (e *exchange) ask() {
	defer close(e.ended)
	question, answer := make([]byte, 8), make([]byte, 8)
	for n := uint64(1); ; n++ {
		select {
		case <-e.stopped:
			return
		case <-time.After(exchangePause):
		}
		binary.BigEndian.PutUint64(question, n)
		_ = e.conn.SetDeadline(time.Now().Add(testnet.WaitLimit))
		_, err := e.conn.Write(question)
		if err == nil {
			_, err = io.ReadFull(e.conn, answer)
		}
		if got := binary.BigEndian.Uint64(answer); err == nil && got != n {
			err = fmt.Errorf("question %d got the answer to %d", n, got)
		}
		e.mu.Lock()
		e.err = err
		e.answers = append(e.answers, time.Now())
		e.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// firstAfter waits for the first answer that came after when.
func (e *exchange) firstAfter(t *testing.T, when time.Time) time.Time {
	t.Helper()
	var first time.Time
	eventually(t, "the connection to go on", func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.err != nil {
			return e.err
		}
		for i := len(e.answers) - 1; i >= 0 && e.answers[i].After(when); i-- {
			first = e.answers[i]
		}
		if first.IsZero() {
			return errors.New("no answer yet")
		}
		return nil
	})
	return first
}

// stop ends the exchange, fails the test if it had failed, and returns the longest
// time between two answers, for the log.
func (e *exchange) stop(t *testing.T) time.Duration {
	t.Helper()
	close(e.stopped)
	<-e.ended
	if e.err != nil {
		t.Fatalf("the connection broke after %d answers: %v", len(e.answers), e.err)
	}
	var longest time.Duration
	for i := 1; i < len(e.answers); i++ {
		longest = max(longest, e.answers[i].Sub(e.answers[i-1]))
	}
	return longest
}

// pings returns nil if addr answers.
func pings(t *testing.T, from *testnet.Namespace, addr netip.Addr) error {
	t.Helper()
	_, err := from.Exec(t.Context(), "ping", "-n", "-c1", "-W1", addr.String())
	return err
}

// expectPings waits until each pod reaches each other one over both families.
func expectPings(t *testing.T, pods ...*testnet.Pod) {
	t.Helper()
	for _, v6 := range families {
		expectPingsOf(t, v6, pods...)
	}
}

// expectPingsOf is expectPings for one family.
func expectPingsOf(t *testing.T, v6 bool, pods ...*testnet.Pod) {
	t.Helper()
	for _, from := range pods {
		for _, to := range pods {
			eventually(t, from.Name()+" to reach "+to.Name(), func() error { return pings(t, from.Namespace, addrOf(t, to, v6)) })
		}
	}
}
