package testnet

import (
	"context"
	"errors"
	"io"
	"net"
)

// Forward accepts connections until the listener is closed, and joins each with one that dial makes.
// So a program outside a namespace reaches a server that listens on the namespace's loopback only.
func Forward(ctx context.Context, listener net.Listener, dial func(context.Context) (net.Conn, error)) error {
	for {
		in, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer in.Close()
			out, err := dial(ctx)
			if err != nil {
				return // the client sees that the connection ends
			}
			defer out.Close()
			ended := make(chan struct{})
			go func() {
				pipe(out, in)
				close(ended)
			}()
			pipe(in, out)
			<-ended
		}()
	}
}

// pipe copies one direction, and passes its end on.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error ends the connection, which both ends see
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
