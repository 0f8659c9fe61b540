package daemon

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

func TestByTheClockWithoutClockChange(t *testing.T) {
	at := time.Now()
	for range 1000 {
		if got := byTheClock(at); !got.Equal(at) || got.Round(0) != at.Round(0) {
			t.Fatalf("%v became %v", at, got)
		}
	}
	if got := byTheClock(time.Time{}); !got.IsZero() {
		t.Errorf("a time that never was became %v", got)
	}
}

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// served returns a client's end of a connection to a server that ends with the test.
func served(t *testing.T, server *http.Server) net.Conn {
	listener := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	serveHTTP(ctx, group, listener, server)
	client, end := net.Pipe()
	listener.conns <- end
	t.Cleanup(func() {
		client.Close()
		stop()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.WriteString(client, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	return client
}

// A client that reads no answer keeps its place for a while only.
func TestSlowReadersAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, answered := time.Now(), make(chan error, 1)
		served(t, webServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, 1<<20))
			answered <- err
		})))
		select {
		case err := <-answered:
			if took := time.Since(began); err == nil || took > writeLimit {
				t.Errorf("the answer ended after %v with %v", took, err)
			}
		case <-time.After(time.Hour):
			t.Error("after an hour the answer is still being written")
		}
	})
}

// What operators ask for on the status socket may take long.
func TestLongAnswersAreNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := served(t, statusServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			select {
			case <-r.Context().Done():
			case <-time.After(time.Hour):
			}
		})))
		answer, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Error(answer.Status)
		}
	})
}
